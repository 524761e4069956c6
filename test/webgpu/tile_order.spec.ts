import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';

const LENGTH = 66; // two tiles of a head in the backward pass

function gradients(qkv: Tensor4D[]): tf.Tensor[] {
  return tf.grads((...qkv) => flashAttention(...qkv as [Tensor4D, Tensor4D, Tensor4D], {causal: true}))(qkv);
}

/**
 * Where tiles are of different length, workgroups take them in an order of its own (kernels/wgsl/sequence.wgsl). Each
 * tile must be taken, and once: heads have the bits that they have among fewer heads.
 */
describe('the order of tiles on WebGPU', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  for (const [heads, what] of [
    [72, '144 tiles: a whole round from the longest to the shortest, and part of one back'],
    [260, '520 tiles: more than go together, all one way'],
  ] as const) {
    it(`takes every tile of ${what}`, async () => {
      const differences = tf.tidy(() => {
        const qkv = [1, 2, 3].map(
            seed => tf.randomNormal<tf.Rank.R4>([1, LENGTH, heads, 4], 0, 1, 'float32', seed));
        const halves = [0, 1].map(half => gradients(qkv.map(
            x => tf.slice(x, [0, 0, half * heads / 2, 0], [1, LENGTH, heads / 2, 4]))));
        return gradients(qkv).map(
            (all, n) => tf.max(tf.abs(tf.sub(all, tf.concat(halves.map(gradients => gradients[n]), 2)))));
      });
      for (const difference of differences) {
        expect((await difference.data())[0]).toBe(0);
      }
      tf.dispose(differences);
    });
  }
});
