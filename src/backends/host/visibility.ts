import {broadcastStrides, diagonalOffset} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {Sequence} from './sequences.js';
import {TILE_KEYS} from './tiles.js';

/** What hides pairs and changes scores, as a call's tensors hold it, and what dropout is drawn from. */
export interface Extras {
  readonly mask?: Uint8Array;
  readonly bias?: Float32Array;
  readonly alibiSlopes?: Float32Array;
  readonly sinks?: Float32Array;
  readonly seed: number;
}

/** Which keys each query of one sequence sees: lengths, window (causal is one), mask, and where the bias is not −∞. */
export class Visibility {
  private readonly offset: number;
  private readonly maskStrides: readonly number[];
  private readonly biasStrides: readonly number[];

  constructor(
      private readonly problem: Problem, private readonly sequence: Sequence,
      private readonly mask: Uint8Array|undefined, private readonly bias: Float32Array|undefined) {
    this.offset = diagonalOffset(problem, sequence.queries, sequence.keys);
    this.maskStrides = broadcastStrides(problem.maskShape);
    this.biasStrides = broadcastStrides(problem.biasShape);
  }

  /** First key that a query sees, as far as lengths and window tell. */
  keyBegin(query: number): number {
    const {windowLeft} = this.problem;
    return windowLeft < 0 ? 0 : Math.max(0, query + this.offset - windowLeft);
  }

  /** One past the last key that a query sees. */
  keyEnd(query: number): number {
    const {windowRight} = this.problem;
    const {queries, keys} = this.sequence;
    if (query >= queries) {
      return 0;
    }
    return windowRight < 0 ? keys : Math.max(0, Math.min(keys, query + this.offset + windowRight + 1));
  }

  /** The tiles of keys that some query in [first, first + rows) sees: [begin, end), begin a multiple of TILE_KEYS. */
  tiles(first: number, rows: number): [number, number] {
    const last = Math.min(first + rows, this.sequence.queries) - 1;
    return [Math.floor(this.keyBegin(first) / TILE_KEYS) * TILE_KEYS, last < first ? 0 : this.keyEnd(last)];
  }

  /**
   * Writes the tile-local indices of the keys in [first, first + columns) that the query sees into `index` from `at`
   * on; gives how many.
   */
  list(batch: number, head: number, query: number, first: number, columns: number, index: Int32Array, at: number):
      number {
    const begin = Math.max(0, this.keyBegin(query) - first);
    const end = Math.min(columns, this.keyEnd(query) - first);
    const {mask, bias} = this;
    const [mb, mh, mi, mj] = this.maskStrides;
    const [bb, bh, bi, bj] = this.biasStrides;
    const maskAt = batch * mb + head * mh + query * mi + first * mj;
    const biasAt = batch * bb + head * bh + query * bi + first * bj;
    let count = 0;
    for (let j = begin; j < end; j++) {
      if ((!mask || mask[maskAt + j * mj] !== 0) && (!bias || bias[biasAt + j * bj] !== -Infinity)) {
        index[at + count++] = j;
      }
    }
    return count;
  }

  /** The same for a tile's rows one after the other, TILE_KEYS apart; `counts` gets how many each. Gives the sum. */
  listTile(batch: number, head: number, query: number, rows: number, first: number, columns: number,
           index: Int32Array, counts: Int32Array): number {
    let sum = 0;
    for (let r = 0; r < rows; r++) {
      counts[r] = this.list(batch, head, query + r, first, columns, index, r * TILE_KEYS);
      sum += counts[r];
    }
    return sum;
  }
}
