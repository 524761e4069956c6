import * as tf from '@tensorflow/tfjs';

import {
  flashAttention, flashAttentionKvPacked, flashAttentionQkvPacked, flashAttentionVarlen, flashAttentionWithKvCache,
  flashAttentionWithLse,
} from '../../src/index.js';
import type {CallShapeOptions, CallShapes, ComputeType, PrepareOptions} from '../../src/index.js';

export const random = (shape: readonly number[]) => tf.randomNormal(shape as [number, number, number, number]);
export const gradients = {gradients: true};

interface Precision {
  readonly computeType?: ComputeType;
}

/** A call, and what `prepare` is told about it. */
export interface PreparedCall {
  readonly what: string;
  readonly shapes: CallShapes;
  readonly options?: CallShapeOptions;
  readonly prepare?: PrepareOptions;
  /** The call, in that precision; gives what is to be read. */
  readonly call: (precision: Precision) => tf.Tensor|tf.Tensor[];
}

const [B, N, H, D] = [2, 33, 2, 8];
export const x = [B, N, H, D];

export const EVERY_OPTION = 'forward and backward, every option';
export const FEW_QUERIES = 'few queries over many keys, which are split';
export const FEW_QUERIES_WITH_GRADIENTS = 'few queries with gradients';
export const APPENDED = 'a token appended to a cache';
export const SUMMED_APART = 'dK and dV that are summed apart over subgroup matrices';
export const END_TO_END = 'sequences end to end';
export const LSE_GRADIENT = 'gradients of output and LSE';
export const PAGED = 'a cache in pages';

export const PREPARED_CALLS: readonly PreparedCall[] = [
  {
    what: 'a forward pass', shapes: {q: x, k: x, v: x},
    call: precision => flashAttention(random(x), random(x), random(x), precision),
  },
  {
    what: EVERY_OPTION, prepare: gradients,
    shapes: {q: [B, N, H, D], k: [B, 40, 1, D], v: [B, 40, 1, 12]},
    options: {
      causal: true, windowSize: [20, -1], softcap: 3, dropoutP: 0.1, mask: [N, 40], bias: [1, H, N, 40],
      alibiSlopes: [H], sinks: [H], queryLengths: [B], keyLengths: [B],
    },
    call: precision => {
      const mask = tf.ones<tf.Rank.R2>([N, 40], 'bool');
      const queryLengths = [N, 20];
      return tf.grads((...[q, k, v, bias, sinks]) => flashAttention(q as tf.Tensor4D, k, v, {
        causal: true, windowSize: [20, -1], softcap: 3, dropoutP: 0.1, mask, bias, sinks, queryLengths,
        alibiSlopes: [0.1, 0.2], keyLengths: [40, 7], ...precision,
      }))([random([B, N, H, D]), random([B, 40, 1, D]), random([B, 40, 1, 12]), random([1, H, N, 40]), tf.ones([H])]);
    },
  },
  {
    what: 'some gradients, heads first', shapes: {q: [1, 2, N, 16], k: [1, 2, N, 16], v: [1, 2, N, 16]},
    options: {layout: 'bhnd'}, prepare: {gradients: ['k']},
    call: precision => {
      const [q, v] = [random([1, 2, N, 16]), random([1, 2, N, 16])];
      const options = {layout: 'bhnd', ...precision} as const;
      return tf.grad(k => flashAttention(q as tf.Tensor4D, k, v, options))(random([1, 2, N, 16]));
    },
  },
  {
    what: 'a bias that is summed over', shapes: {q: x, k: x, v: x}, options: {bias: [N]},
    prepare: {gradients: ['bias']},
    call: precision => {
      const q = random(x) as tf.Tensor4D;
      return tf.grad(bias => flashAttention(q, q, q, {bias, ...precision}))(tf.zeros([N]));
    },
  },
  {
    what: FEW_QUERIES,
    shapes: {q: [1, 1, H, D], k: [1, 1000, H, D], v: [1, 1000, H, D]},
    call: precision => flashAttention(
        random([1, 1, H, D]), random([1, 1000, H, D]), random([1, 1000, H, D]), precision),
  },
  {
    what: FEW_QUERIES_WITH_GRADIENTS, shapes: {q: [1, 2, H, D], k: [1, 300, H, D], v: [1, 300, H, D]},
    prepare: gradients,
    call: precision => tf.grads((q, k, v) => flashAttention(q as tf.Tensor4D, k, v, precision))(
        [random([1, 2, H, D]), random([1, 300, H, D]), random([1, 300, H, D])]),
  },
  {
    what: SUMMED_APART, shapes: {q: [1, 20, 1, 8], k: [1, 20, 1, 8], v: [1, 20, 1, 132]},
    prepare: {gradients: ['k', 'v']},
    call: precision => {
      const q = random([1, 20, 1, 8]);
      return tf.grads((k, v) => flashAttention(q, k as tf.Tensor4D, v as tf.Tensor4D, precision))(
          [random([1, 20, 1, 8]), random([1, 20, 1, 132])]);
    },
  },
  {
    what: LSE_GRADIENT, shapes: {q: x, k: x, v: x}, prepare: {gradients: ['q'], lseGradient: true},
    call: precision => {
      const [k, v] = [random(x), random(x)];
      return tf.grad(q => {
        const {output, lse} = flashAttentionWithLse(q as tf.Tensor4D, k, v, precision);
        return tf.add(tf.sum(output), tf.sum(lse));
      })(random(x));
    },
  },
  {
    what: 'q, k and v packed', shapes: {qkv: [B, N, 3, H, D]}, options: {causal: true}, prepare: gradients,
    call: precision => tf.grad(qkv => flashAttentionQkvPacked(qkv, {causal: true, ...precision}))(
        random([B, N, 3, H, D])),
  },
  {
    what: 'k and v packed', shapes: {q: x, kv: [B, 9, 2, 1, D]}, prepare: gradients,
    call: precision => tf.grads((q, kv) => flashAttentionKvPacked(q, kv, precision))(
        [random(x), random([B, 9, 2, 1, D])]),
  },
  {
    what: END_TO_END, shapes: {q: [20, H, D], k: [30, H, D], v: [30, H, D]}, prepare: gradients,
    options: {cuSeqlensQ: [0, 5, 20], cuSeqlensK: [0, 25, 30], causal: true},
    call: precision => tf.grads(
        (q, k, v) => flashAttentionVarlen(q, k, v, [0, 5, 20], [0, 25, 30], {causal: true, ...precision}))(
        [random([20, H, D]), random([30, H, D]), random([30, H, D])]),
  },
  {
    what: APPENDED,
    shapes: {q: [B, 1, 4, D], kCache: [B, 300, H, D], vCache: [B, 300, H, D], k: [B, 1, H, D], v: [B, 1, H, D]},
    options: {causal: true},
    call: precision => flashAttentionWithKvCache(random([B, 1, 4, D]), random([B, 300, H, D]), random([B, 300, H, D]), {
      k: random([B, 1, H, D]), v: random([B, 1, H, D]), cacheLengths: 7, causal: true, ...precision,
    }),
  },
  {
    what: PAGED, shapes: {q: [B, 3, H, D], kCache: [6, 16, H, D], vCache: [6, 16, H, D]},
    options: {blockTable: [B, 3], numSplits: 2, sinks: [H]},
    call: precision => flashAttentionWithKvCache(random([B, 3, H, D]), random([6, 16, H, D]), random([6, 16, H, D]), {
      blockTable: tf.tensor2d([0, 1, 2, 3, 4, 5], [B, 3], 'int32'), cacheLengths: [40, 20], numSplits: 2, sinks: [0, 1],
      ...precision,
    }),
  },
];
