import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithLse} from '../../src/index.js';

import type {Variant} from './variants.js';
import type {ReadRows} from './verify_rows.js';

/** The last head of the last batch of a tensor [B,H,N,D]. */
export function lastHead(x: tf.Tensor4D): ReadRows {
  return async (first, count) => {
    const [batch, heads, , size] = x.shape;
    const part = tf.slice(x, [batch - 1, heads - 1, first, 0], [1, 1, count, size]);
    const values = await part.data();
    part.dispose();
    return values;
  };
}

async function scalar(f: () => tf.Tensor): Promise<number> {
  const result = tf.tidy(f);
  const value = (await result.data())[0];
  result.dispose();
  return value;
}

/**
 * Errors of the gradients by two identities that hold without dropout, at any length: the rows of dV sum to those of
 * dO, since weights sum to 1; and Σ q∘dQ = Σ k∘dK, since both are Σ dS∘S. Relative to the size of the terms.
 */
export async function gradientError(
    q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, causal: boolean, dO: tf.Tensor4D,
    {computeType}: Pick<Variant, 'computeType'>): Promise<number> {
  const [dQ, dK, dV] = tf.tidy(() => tf.grads((a, b, c) =>
      flashAttentionWithLse(a, b, c, {layout: 'bhnd', causal, computeType}).output)([q, k, v], dO));
  const sums = await scalar(() => tf.max(tf.abs(tf.sub(tf.sum(dV, 2), tf.sum(dO, 2)))));
  const size = await scalar(() => tf.max(tf.sum(tf.abs(dO), 2)));
  const [qSum, kSum] = [await scalar(() => tf.sum(tf.mul(q, dQ))), await scalar(() => tf.sum(tf.mul(k, dK)))];
  const terms = await scalar(() => tf.sum(tf.abs(tf.mul(q, dQ))));
  tf.dispose([dQ, dK, dV]);
  return Math.max(sums / size, Math.abs(qSum - kSum) / terms);
}
