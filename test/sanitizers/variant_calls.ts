import * as tf from '@tensorflow/tfjs';

import {
  flashAttentionKvPacked, flashAttentionQkvPackedWithLse, flashAttentionVarlenQkvPacked, flashAttentionVarlenWithLse,
  flashAttentionWithKvCache, KvCache,
} from '../../src/index.js';
import {Random} from '../support/random.js';

function normal(seed: number, shape: number[]): tf.Tensor {
  return tf.tensor(new Random(seed).normals(tf.util.sizeFromShape(shape)), shape);
}

const loss = ({output, lse}: {output: tf.Tensor, lse: tf.Tensor}): tf.Scalar =>
    tf.add(tf.sum(tf.mul(output, output)), tf.sum(lse));

/** Calls that the case table does not make: packed tensors, sequences end to end, caches and their pages. */
export const VARIANT_CALLS: Record<string, () => unknown> = {
  'qkv packed'() {
    const f = (qkv: tf.Tensor) => loss(flashAttentionQkvPackedWithLse(qkv, {causal: true, softcap: 5}));
    return tf.grad(f)(normal(1, [2, 33, 3, 4, 16]));
  },
  'qkv packed with lengths, odd size'() {
    const options = {windowSize: [7, 3] as [number, number], keyLengths: [20, 33]};
    return tf.grad(qkv => loss(flashAttentionQkvPackedWithLse(qkv, options)))(normal(2, [2, 33, 3, 4, 7]));
  },
  'kv packed'() {
    const f = (q: tf.Tensor, kv: tf.Tensor) => tf.sum(flashAttentionKvPacked(q, kv, {causal: true})) as tf.Scalar;
    return tf.grads(f)([normal(3, [2, 21, 6, 8]), normal(4, [2, 33, 2, 2, 8])]);
  },
  'varlen'() {
    const [cuQ, cuK] = [[0, 5, 5, 70, 71, 140], [0, 40, 41, 41, 110, 150]];
    const alibiSlopes = cuQ.slice(1).map((_, b) => [0.1 * b, 0.3, 0.02, 0.5]);
    const options = {causal: true, dropoutP: 0.2, seed: 3};
    const f = (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, sinks: tf.Tensor) =>
        loss(flashAttentionVarlenWithLse(q, k, v, cuQ, cuK, {...options, alibiSlopes, sinks}));
    return tf.grads(f)(
        [normal(5, [140, 4, 12]), normal(6, [150, 2, 12]), normal(7, [150, 2, 20]), tf.tensor1d([0.3, -1, 2, 0.1])]);
  },
  'varlen packed'() {
    const f = (qkv: tf.Tensor) =>
        tf.sum(flashAttentionVarlenQkvPacked(qkv, [0, 1, 1, 50, 70])) as tf.Scalar;
    return tf.grad(f)(normal(8, [70, 3, 2, 8]));
  },
  'a cache in batches of its own, padded'() {
    const [q, k, v] = [normal(9, [3, 2, 4, 16]), normal(10, [5, 300, 2, 16]), normal(11, [5, 300, 2, 24])];
    flashAttentionWithKvCache(q, k, v, {
      cacheLengths: [300, 1, 170], cacheLeftPad: [7, 0, 100], cacheBatchIndex: [4, 1, 0], causal: true, numSplits: 3,
    });
  },
  'a cache in pages'() {
    const [q, k, v] = [normal(12, [2, 1, 4, 8]), normal(13, [5, 16, 2, 8]), normal(14, [5, 16, 2, 8])];
    flashAttentionWithKvCache(q, k, v, {blockTable: [[3, 0], [4, 2]], cacheLengths: [31, 17], sinks: [1, -2, 0, 5]});
  },
  'one query over many keys'() {
    const [q, k, v] = [normal(15, [1, 1, 8, 64]), normal(16, [1, 3000, 2, 64]), normal(17, [1, 3000, 2, 64])];
    flashAttentionWithKvCache(q, k, v, {});
  },
  'appending to a cache'() {
    for (const pageSize of [0, 4]) {
      const cache = new KvCache({batch: 2, capacity: 14, keyHeads: 2, headSize: 8, ...pageSize && {pageSize}});
      for (const rows of [5, 1, 4]) {
        const [q, k, v] = [18, 19, 20].map(seed => normal(seed, [2, rows, 2, 8]));
        cache.attend(q, {k, v, causal: true});
      }
      cache.dispose();
    }
  },
};
