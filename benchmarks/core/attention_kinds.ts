import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';

import type {Variant} from './variants.js';

/** Attention over [B,H,N,D] tensors. */
export type Attention = (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => tf.Tensor4D;

/** Additive causal mask [N,N]: 0 where a query sees a key, −1e9 where not. */
export function causalMask(length: number): tf.Tensor2D {
  return tf.tidy(() => {
    const position = tf.range(0, length);
    const later = tf.greater(tf.expandDims(position, 0), tf.expandDims(position, 1));
    return tf.mul(tf.cast(later, 'float32'), -1e9) as tf.Tensor2D;
  });
}

/** What a tfjs user writes without this package: matMul, softmax, matMul. `mask` as {@link causalMask} gives it. */
export function standardAttention(mask?: tf.Tensor2D): Attention {
  return (q, k, v) => tf.tidy(() => {
    const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(q.shape[3]));
    return tf.matMul(tf.softmax(mask ? tf.add(scores, mask) : scores), v) as tf.Tensor4D;
  });
}

export function flash(causal: boolean, {computeType}: Pick<Variant, 'computeType'>): Attention {
  return (q, k, v) => flashAttention(q, k, v, {layout: 'bhnd', causal, computeType});
}
