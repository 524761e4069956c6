/** Loops of more rounds stay loops. */
const MOST_ROUNDS = 64;

/** The value of a bound such as `BLOCK_KEYS / MATRIX_N`; undefined where it is not made of constants and numbers. */
function evaluate(bound: string, constants: ReadonlyMap<string, number>): number|undefined {
  const [first, ...rest] = bound.split('/').map(factor => {
    const text = factor.trim();
    return /^\d+u?$/.test(text) ? parseInt(text, 10) : constants.get(text);
  });
  const value = rest.reduce((product, factor) => product && factor && product / factor, first);
  return value !== undefined && Number.isInteger(value) ? value : undefined;
}

/** Where the block that begins behind an opening brace ends: at its closing brace. */
function endOfBlock(code: string, begin: number): number {
  let depth = 1;
  let at = begin;
  for (; depth > 0 && at < code.length; at++) {
    depth += code[at] === '{' ? 1 : code[at] === '}' ? -1 : 0;
  }
  return at - 1;
}

/**
 * WGSL with its counted loops written out: `for (var i = 0u; i < ROUNDS; i++) { … }` becomes a block for each round,
 * with a number in the place of `i`. Comments go. Arrays of subgroup matrices that are only indexed by numbers stay in
 * registers; in a loop, NVIDIA's compiler (580.159) puts them into memory, which halves the speed (NOTES.md).
 *
 * Left alone: loops that `break` or `continue`, of bounds that are no constants (`const NAME = 3u;` of the same text),
 * or of more than 64 rounds.
 */
export function unrollLoops(text: string): string {
  let code = text.replace(/\/\/.*$/gm, '');
  const constants = new Map(
      [...code.matchAll(/^const (\w+) = (\d+)u;/gm)].map(([, name, value]) => [name, Number(value)]));
  const loop = /for \(var (\w+) = 0u; \1 < ([^;]+); \1\+\+\) \{/g;
  for (let found = loop.exec(code); found; found = loop.exec(code)) {
    const [head, counter, bound] = found;
    const begin = found.index + head.length;
    const end = endOfBlock(code, begin);
    const body = code.slice(begin, end);
    const rounds = evaluate(bound, constants);
    if (rounds === undefined || rounds > MOST_ROUNDS || /\b(break|continue)\b/.test(body)) {
      loop.lastIndex = begin;
      continue;
    }
    const name = new RegExp(`\\b${counter}\\b`, 'g');
    const blocks = Array.from({length: rounds}, (_, round) => `{${body.replace(name, `${round}u`)}}`);
    code = code.slice(0, found.index) + blocks.join('\n') + code.slice(end + 1);
    loop.lastIndex = found.index; // the loops within
  }
  return code;
}
