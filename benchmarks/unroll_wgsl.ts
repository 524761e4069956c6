/**
 * Experiment only: writes out the short loops over ROWS, COLUMNS, KEY_GROUPS and the like, to see whether a driver's
 * compiler keeps the accumulator arrays in registers by itself.
 */
export function unrolled(code: string): string {
  const constants = new Map<string, number>();
  for (const [, name, value] of code.matchAll(/^const (\w+) = (\d+)u;$/gm)) {
    constants.set(name, Number(value));
  }
  const bound = (text: string): number|undefined => {
    let product = 1;
    for (const factor of text.split(/\s*([*/])\s*/)) {
      if (factor === '*') {
        continue;
      }
      if (factor === '/') {
        return constants.get('ROWS') !== undefined && text === 'ROWS / 4u' ? constants.get('ROWS')! / 4 : undefined;
      }
      const value = /^\d+u$/.test(factor) ? parseInt(factor) : constants.get(factor);
      if (value === undefined) {
        return undefined;
      }
      product *= value;
    }
    return product;
  };
  let at = 0;
  let result = code;
  for (;;) {
    const loop = /for \(var (\w+) = 0u; \1 < ([\w */]+); \1\+\+\) \{/g;
    loop.lastIndex = at;
    const match = loop.exec(result);
    if (!match) {
      return result;
    }
    const [head, name, limit] = match;
    const bodyStart = match.index + head.length;
    let depth = 1;
    let end = bodyStart;
    while (depth > 0) {
      const c = result[end++];
      depth += c === '{' ? 1 : c === '}' ? -1 : 0;
    }
    const count = bound(limit);
    if (count === undefined || count > 16 || limit === 'THREADS_X' || limit === 'ROW_CHUNK') {
      at = bodyStart;
      continue;
    }
    const body = result.slice(bodyStart, end - 1);
    const copies = Array.from({length: count}, (_, n) => `{${body.replace(new RegExp(`\\b${name}\\b`, 'g'), `${n}u`)}}`);
    result = result.slice(0, match.index) + copies.join('\n') + result.slice(end);
    at = match.index;
  }
}
