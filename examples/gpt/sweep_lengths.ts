import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';

import {ATTENTION_KINDS, standardAttention} from './attention.js';
import type {AttentionKind} from './attention.js';
import {largestTensorBytes, medianTime, peakBytes, timeOf} from './measure.js';

/** What is measured: causal attention on [1,N,heads,headSize], forward and backward. */
export interface SweepOptions {
  readonly lengths: readonly number[];
  readonly heads: number;
  readonly headSize: number;
  /** A length that would take longer than what is left of this is left out. */
  readonly seconds: number;
  /** A length whose scores with their gradients would need more is left out for standard attention. */
  readonly mostBytes: number;
}

export interface SweepPoint {
  readonly length: number;
  readonly kind: AttentionKind;
  /** Absent when it was left out; `note` then says why. */
  readonly milliseconds?: number;
  readonly peakBytes?: number;
  readonly note?: string;
}

/** What a length costs in all, in runs, where one takes long. */
const RUNS_AT_LEAST = 5;
/** Standard attention holds about so many [N,N] tensors for each head at its peak. */
const SCORE_TENSORS = 8;

type Attend = (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => tf.Tensor4D;

const ATTEND: Record<AttentionKind, Attend> = {
  flash: (q, k, v) => flashAttention(q, k, v, {causal: true}),
  standard: (q, k, v) => standardAttention(q, k, v, true),
};

/** Output and the gradients of q, k and v. */
function attentionStep(kind: AttentionKind, inputs: readonly tf.Tensor4D[], dO: tf.Tensor4D): tf.Tensor[] {
  const attend = ATTEND[kind] as (...inputs: tf.Tensor[]) => tf.Tensor;
  const {value, grads} = tf.valueAndGrads(attend)([...inputs], dO);
  return [value, ...grads];
}

async function measure(kind: AttentionKind, length: number, {heads, headSize}: SweepOptions): Promise<SweepPoint> {
  const shape: [number, number, number, number] = [1, length, heads, headSize];
  const [q, k, v, dO] = [1, 2, 3, 4].map(seed => tf.randomNormal<tf.Rank.R4>(shape, 0, 1, 'float32', seed));
  const run = () => attentionStep(kind, [q, k, v], dO);
  try {
    await timeOf(run); // compiles kernels
    const peak = await peakBytes(run);
    return {length, kind, milliseconds: await medianTime(run), peakBytes: peak};
  } finally {
    tf.dispose([q, k, v, dO]);
  }
}

/**
 * Time and peak memory of one attention layer's work in a training step, for both kinds at each length. Points come as
 * they are measured, the shorter lengths first.
 */
export async function* sweepLengths(options: SweepOptions): AsyncGenerator<SweepPoint, void> {
  const deadline = performance.now() + options.seconds * 1000;
  const last: Partial<Record<AttentionKind, SweepPoint>> = {};
  for (const length of options.lengths) {
    for (const kind of ATTENTION_KINDS) {
      const before = last[kind];
      const forecast = before ? RUNS_AT_LEAST * before.milliseconds! * (length / before.length) ** 2 : 0;
      const scoreBytes = 4 * options.heads * length ** 2;
      const neededBytes = SCORE_TENSORS * scoreBytes;
      if (performance.now() + forecast > deadline) {
        yield {length, kind, note: `left out: would take about ${Math.ceil(forecast / 1000)} s`};
      } else if (kind === 'standard' && (neededBytes > options.mostBytes || scoreBytes > largestTensorBytes())) {
        yield {length, kind, note: `left out: would need about ${(neededBytes / 2 ** 30).toFixed(1)} GiB`};
      } else {
        yield last[kind] = await measure(kind, length, options);
      }
    }
  }
}
