/** Most symbols that a vocabulary holds; rarer ones become {@link UNKNOWN}. */
export const MAX_SYMBOLS = 256;
/** Stands for every symbol that the vocabulary lacks. */
export const UNKNOWN = '\uFFFD';
const VALIDATION_SHARE = 0.1;

/** One way to write each symbol: composed accents, plain line ends, no byte-order mark. */
export function normalise(text: string): string {
  return text.replace(/^\uFEFF/, '').replace(/\r\n?/g, '\n').normalize('NFC');
}

/** Symbols (Unicode code points) and their numbers. */
export class Vocabulary {
  private readonly numbers: Map<string, number>;

  constructor(readonly symbols: readonly string[]) {
    this.numbers = new Map(symbols.map((symbol, number) => [symbol, number]));
  }

  /** The symbols of a text in code-point order: all, or the most frequent and `UNKNOWN`. */
  static of(text: string): Vocabulary {
    const counts = new Map<string, number>();
    for (const symbol of text) {
      counts.set(symbol, (counts.get(symbol) ?? 0) + 1);
    }
    let symbols = [...counts.keys()];
    if (symbols.length > MAX_SYMBOLS) {
      symbols = symbols.sort((a, b) => counts.get(b)! - counts.get(a)! || (a < b ? -1 : 1)).slice(0, MAX_SYMBOLS - 1);
      symbols = [...new Set([...symbols, UNKNOWN])];
    }
    return new Vocabulary(symbols.sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!));
  }

  get size(): number {
    return this.symbols.length;
  }

  /** Numbers of a text's symbols. What the vocabulary lacks becomes `UNKNOWN`, or is left out where there is none. */
  encode(text: string): Int32Array {
    const unknown = this.numbers.get(UNKNOWN);
    const ids: number[] = [];
    for (const symbol of text) {
      const id = this.numbers.get(symbol) ?? unknown;
      if (id !== undefined) {
        ids.push(id);
      }
    }
    return Int32Array.from(ids);
  }

  decode(ids: ArrayLike<number>): string {
    return Array.from(ids, id => this.symbols[id]).join('');
  }
}

/** A text as numbers: the first nine tenths to learn from, the last tenth to judge by. */
export interface Corpus {
  readonly vocabulary: Vocabulary;
  readonly train: Int32Array;
  readonly validation: Int32Array;
}

/** Fewest symbols of text from which batches of this context can be drawn and a loss judged. */
export function smallestText(context: number): number {
  return Math.max(1000, 20 * (context + 1));
}

export function splitText(text: string, vocabulary = Vocabulary.of(text)): Corpus {
  const ids = vocabulary.encode(text);
  const end = ids.length - Math.floor(ids.length * VALIDATION_SHARE);
  return {vocabulary, train: ids.subarray(0, end), validation: ids.subarray(end)};
}
