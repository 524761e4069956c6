import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../src/layers/index.js';
import type {AttendOptions} from '../../src/layers/index.js';

export type AttentionKind = 'flash'|'standard';
export const ATTENTION_KINDS: readonly AttentionKind[] = ['flash', 'standard'];

/**
 * Attention as it is usually written: the whole matrix of scores, its softmax, the product with the values.
 * @param query [B,N,H,D], as key and value.
 * @param causal query i sees only keys j ≤ i.
 * @returns [B,N,H,D]
 */
export function standardAttention(
    query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D, causal: boolean): tf.Tensor4D {
  return tf.tidy(() => {
    const [q, k, v] = [query, key, value].map(t => tf.transpose(t, [0, 2, 1, 3])); // [B,H,N,D]
    const [length, headSize] = q.shape.slice(2);
    const scaled = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(headSize)); // [B,H,N,N]
    const scores = causal ? tf.add(scaled, causalBias(length)) : scaled;
    return tf.transpose(tf.matMul(tf.softmax(scores), v), [0, 2, 1, 3]) as tf.Tensor4D;
  });
}

/** [N,N], 0 where key j ≤ query i and −10⁹ elsewhere. Computed on the device, where only N has to go. */
function causalBias(length: number): tf.Tensor2D {
  return tf.tidy(() => {
    const places = tf.range(0, length);
    const isLater = tf.less(tf.reshape(places, [length, 1]), tf.reshape(places, [1, length]));
    return tf.mul(tf.cast(isLater, 'float32'), -1e9);
  });
}

/**
 * The project's attention layer with standard attention inside: the same weights under the same names. Knows neither
 * masks nor dropout, which the GPT does not use.
 */
export class StandardMultiHeadAttention extends FlashMultiHeadAttention {
  static override className = 'StandardMultiHeadAttention';

  protected override attend(
      query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D, {causal}: AttendOptions): tf.Tensor4D {
    return standardAttention(query, key, value, causal);
  }
}
tf.serialization.registerClass(StandardMultiHeadAttention);
