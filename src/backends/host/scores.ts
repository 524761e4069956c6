import {dropoutThreshold, philox4x32, philoxKey} from '../../op/philox.js';
import {broadcastStrides, diagonalOffset} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {Sequence} from './sequences.js';
import type {Extras} from './visibility.js';

/** From scaled products to the scores that the softmax takes: softcap, then ALiBi, then the bias. */
export class Scores {
  private readonly offset: number;
  private readonly biasStrides: readonly number[];

  constructor(private readonly problem: Problem, sequence: Sequence, private readonly extras: Extras) {
    this.offset = diagonalOffset(problem, sequence.queries, sequence.keys);
    this.biasStrides = broadcastStrides(problem.biasShape);
  }

  /**
   * Works on the listed products of one row, in place.
   * @param slopes ∂(capped score)/∂(product), one for each listed; written where given.
   */
  finish(
      scores: Float64Array, row: number, index: Int32Array, from: number, count: number, batch: number, head: number,
      query: number, first: number, slopes?: Float64Array) {
    const {softcap, alibi, queryHeads} = this.problem;
    const {bias, alibiSlopes} = this.extras;
    if (softcap > 0) {
      for (let n = 0; n < count; n++) {
        const at = row + index[from + n];
        const capped = Math.tanh(scores[at] / softcap);
        scores[at] = softcap * capped;
        if (slopes) {
          slopes[n] = 1 - capped * capped;
        }
      }
    }
    if (alibiSlopes) {
      const slope = alibiSlopes[(alibi === 'batch' ? batch * queryHeads : 0) + head];
      for (let n = 0; n < count; n++) {
        const j = index[from + n];
        scores[row + j] -= slope * Math.abs(query + this.offset - first - j);
      }
    }
    if (bias) {
      const [b, h, i, step] = this.biasStrides;
      const at = batch * b + head * h + query * i + first * step;
      for (let n = 0; n < count; n++) {
        const j = index[from + n];
        scores[row + j] += bias[at + j * step];
      }
    }
  }
}

/** Factor of a softmax weight under dropout: 0 or 1/(1−p). */
export class Dropout {
  readonly active: boolean;
  private readonly key: [number, number];
  private readonly threshold: number;
  private readonly keptScale: number;

  constructor({dropoutP}: Problem, seed: number) {
    this.active = dropoutP > 0;
    this.key = philoxKey(seed);
    this.threshold = dropoutThreshold(dropoutP);
    this.keptScale = 1 / (1 - dropoutP);
  }

  /** factors[j] for the tile's keys [first, first + columns); `first` is a multiple of 4. */
  factors(batch: number, head: number, query: number, first: number, columns: number, factors: Float64Array) {
    for (let j = 0; j < columns; j += 4) {
      const words = philox4x32([(first + j) / 4, query, head, batch], this.key);
      for (let n = 0; n < 4; n++) {
        factors[j + n] = words[n] < this.threshold ? 0 : this.keptScale;
      }
    }
  }
}
