import {philox4x32} from './philox_reference.js';
import type {Precision} from './precision.js';
import {listSeenKeys, rowStart, sequenceOf} from './reference_problem.js';
import type {ReferenceProblem, RowStart} from './reference_problem.js';

export interface ReferenceInputs {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  dO: Float32Array;
  dLse: Float32Array;
}

/**
 * One query of one head: its scores, its softmax, and the gradient of its weights, all in the given precision. Element
 * n of the arrays belongs to key seen[n].
 */
export class ReferenceRow {
  b = 0;
  h = 0;
  i = 0;
  /** Row of the LSE [B,Hq,Nq]. */
  at = 0;
  /** Where the row begins in q and in the output. */
  qi = 0;
  oi = 0;
  /** Where the rows of k and v of this head begin, by key. */
  readonly kj: Int32Array;
  readonly vj: Int32Array;
  readonly seen: Int32Array;
  count = 0;
  readonly scores: Float64Array;
  /** Derivative of the score by the scaled product: 1 without softcap. */
  readonly slopes: Float64Array;
  /** The softmax's weights, before dropout. */
  readonly weights: Float64Array;
  /** Factors of the weights under dropout: 0, or 1/(1 − p). */
  readonly kept: Float64Array;
  /** Gradient of the weights, and its dot product with them, which closes the softmax's gradient. */
  readonly dWeights: Float64Array;
  closing = 0;
  sink = -Infinity;
  sinkWeight = 0;
  max = 0;
  total = 0;
  private readonly atQ: RowStart;
  private readonly atK: RowStart;
  private readonly atV: RowStart;
  private readonly atO: RowStart;

  constructor(
      private readonly p: ReferenceProblem, private readonly x: ReferenceInputs, readonly precision: Precision) {
    const {queryLength, keyLength, queryHeads, keyHeads, headSize, valueSize} = p;
    [this.kj, this.vj, this.seen] = [0, 0, 0].map(() => new Int32Array(keyLength));
    [this.scores, this.weights, this.dWeights] = [0, 0, 0].map(() => new Float64Array(keyLength));
    this.slopes = new Float64Array(keyLength).fill(1);
    this.kept = new Float64Array(keyLength).fill(1);
    this.atQ = rowStart(p, queryLength, queryHeads, headSize);
    this.atK = rowStart(p, keyLength, keyHeads, headSize);
    this.atV = rowStart(p, keyLength, keyHeads, valueSize);
    this.atO = rowStart(p, queryLength, queryHeads, valueSize);
  }

  enterHead(b: number, h: number) {
    const {p, kj, vj} = this;
    const keyHead = Math.floor(h * p.keyHeads / p.queryHeads);
    this.b = b;
    this.h = h;
    this.sink = p.sinks?.(h) ?? -Infinity;
    for (let j = 0; j < p.keyLength; j++) {
      kj[j] = this.atK(b, j, keyHead);
      vj[j] = this.atV(b, j, keyHead);
    }
  }

  /** Gives false for a row without a finite score: it sees no key, or all that it sees is −∞, and it has no sink. */
  compute(i: number): boolean {
    const {p, b, h} = this;
    this.i = i;
    this.at = (b * p.queryHeads + h) * p.queryLength + i;
    this.qi = this.atQ(b, i, h);
    this.oi = this.atO(b, i, h);
    this.count = listSeenKeys(p, b, h, i, this.seen);
    this.score();
    this.max = this.maximum();
    if (this.max === -Infinity) {
      return false;
    }
    if (p.dropoutP > 0) {
      this.drop();
    }
    this.softmax();
    return true;
  }

  private score() {
    const {p, b, h, i, count, seen, scores, slopes, kj} = this;
    const {q, k} = this.x;
    const {round, store, dot} = this.precision;
    const scale = round(p.softmaxScale);
    const softcap = round(p.softcap ?? 0);
    const slope = p.alibiSlopes?.(b, h);
    const position = i + sequenceOf(p, b).offset;
    for (let n = 0; n < count; n++) {
      let score = round(store(dot(q, this.qi, k, kj[seen[n]], p.headSize)) * scale);
      if (softcap > 0) {
        const tanh = round(Math.tanh(round(score / softcap)));
        score = round(softcap * tanh);
        slopes[n] = round(1 - round(tanh * tanh));
      }
      if (slope !== undefined) {
        score = round(score - round(slope * Math.abs(position - seen[n])));
      }
      if (p.bias) {
        score = round(score + p.bias(b, h, i, seen[n]));
      }
      scores[n] = score;
    }
  }

  private maximum(): number {
    let max = this.sink;
    for (let n = 0; n < this.count; n++) {
      const s = this.scores[n];
      // A NaN stays the maximum, and so reaches the whole row.
      max = s > max || Number.isNaN(s) ? s : max;
    }
    return max;
  }

  private softmax() {
    const {p, count, seen, scores, weights, kept, dWeights, max} = this;
    const {dO, v} = this.x;
    const {round, store, dot} = this.precision;
    let total = 0;
    for (let n = 0; n < count; n++) {
      weights[n] = round(Math.exp(round(scores[n] - max)));
      total = round(total + weights[n]);
    }
    const sinkExp = round(Math.exp(round(this.sink - max)));
    total = round(total + sinkExp);
    let closing = 0;
    for (let n = 0; n < count; n++) {
      weights[n] = round(weights[n] / total);
      dWeights[n] = round(store(dot(dO, this.oi, v, this.vj[seen[n]], p.valueSize)) * kept[n]);
      closing = round(closing + round(weights[n] * dWeights[n]));
    }
    this.total = total;
    this.closing = closing;
    this.sinkWeight = round(sinkExp / total);
  }

  private drop() {
    const {p, b, h, i, seen, kept} = this;
    const {round} = this.precision;
    const threshold = Math.round(p.dropoutP * 2 ** 32);
    const keptScale = round(1 / (1 - p.dropoutP));
    let block = -1;
    let words: number[] = [];
    for (let n = 0; n < this.count; n++) {
      const j = seen[n];
      if (Math.floor(j / 4) !== block) {
        block = Math.floor(j / 4);
        words = philox4x32([block, i, h, b], p.seed);
      }
      kept[n] = words[j % 4] < threshold ? 0 : keptScale;
    }
  }
}
