import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithKvCache} from '../../../src/index.js';

describe('a refused call that would append', () => {
  beforeAll(() => tf.setBackend('cpu'));

  const q = () => tf.ones([1, 1, 2, 4]);
  const refused: Record<string, (append: object, k: tf.Tensor, v: tf.Tensor) => unknown> = {
    'for its sinks': (append, k, v) => flashAttentionWithKvCache(q(), k, v, {...append, sinks: [1]}),
    'for its slopes': (append, k, v) => flashAttentionWithKvCache(q(), k, v, {...append, alibiSlopes: [1]}),
    'for its heads': (append, k, v) => flashAttentionWithKvCache(tf.ones([1, 1, 3, 4]), k, v, append),
    'for its head size': (append, k, v) => flashAttentionWithKvCache(tf.ones([1, 1, 2, 5]), k, v, append),
  };
  for (const [why, call] of Object.entries(refused)) {
    it(`${why} leaves the cache as it was`, () => {
      tf.tidy(() => {
        const [k, v] = [tf.zeros([1, 3, 2, 4]), tf.zeros([1, 3, 2, 4])];
        const append = {k: tf.ones([1, 1, 2, 4]), v: tf.ones([1, 1, 2, 4]), cacheLengths: 1};
        expect(() => call(append, k, v)).toThrowError(/expected/);
        expect(k.dataSync()).toEqual(new Float32Array(24));
        expect(v.dataSync()).toEqual(new Float32Array(24));
      });
    });
  }
});
