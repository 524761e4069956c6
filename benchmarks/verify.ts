import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithLse} from '../src/index.js';

/** Error of a few rows of the output against float64, relative to the largest value. */
export async function outputError(
    q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, causal: boolean, output: tf.Tensor4D): Promise<number> {
  const [batch, heads, length, size] = q.shape;
  const b = batch - 1;
  const h = heads - 1;
  const take = async (t: tf.Tensor4D, first: number, rows: number) => {
    const part = tf.slice(t, [b, h, first, 0], [1, 1, rows, size]);
    const values = await part.data() as Float32Array;
    part.dispose();
    return values;
  };
  const keyLength = k.shape[2];
  const keys = await take(k, 0, keyLength);
  const values = await take(v, 0, keyLength);
  let error = 0;
  let largest = 0;
  for (const row of new Set([0, length >> 1, length - 1])) {
    const query = await take(q, row, 1);
    const actual = await take(output, row, 1);
    const end = causal ? row + 1 : keyLength;
    const scores = new Float64Array(end);
    for (let j = 0; j < end; j++) {
      let sum = 0;
      for (let d = 0; d < size; d++) {
        sum += query[d] * keys[j * size + d];
      }
      scores[j] = sum / Math.sqrt(size);
    }
    const max = scores.reduce((m, s) => Math.max(m, s), -Infinity);
    const weights = scores.map(s => Math.exp(s - max));
    const total = weights.reduce((sum, w) => sum + w, 0);
    for (let d = 0; d < size; d++) {
      let expected = 0;
      for (let j = 0; j < end; j++) {
        expected += weights[j] / total * values[j * size + d];
      }
      error = Math.max(error, Math.abs(actual[d] - expected));
      largest = Math.max(largest, Math.abs(expected));
    }
  }
  return error / largest;
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
    q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, causal: boolean, dO: tf.Tensor4D): Promise<number> {
  const [dQ, dK, dV] = tf.tidy(() => tf.grads((a, b, c) =>
      flashAttentionWithLse(a, b, c, {layout: 'bhnd', causal}).output)([q, k, v], dO));
  const sums = await scalar(() => tf.max(tf.abs(tf.sub(tf.sum(dV, 2), tf.sum(dO, 2)))));
  const size = await scalar(() => tf.max(tf.sum(tf.abs(dO), 2)));
  const [qSum, kSum] = [await scalar(() => tf.sum(tf.mul(q, dQ))), await scalar(() => tf.sum(tf.mul(k, dK)))];
  const terms = await scalar(() => tf.sum(tf.abs(tf.mul(q, dQ))));
  tf.dispose([dQ, dK, dV]);
  return Math.max(sums / size, Math.abs(qSum - kSum) / terms);
}
