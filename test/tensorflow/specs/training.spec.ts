import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';
import {nativeCalls} from '../../support/native_calls.js';

const STEPS = 40;

function model(): tf.LayersModel {
  const seeded = (seed: number) => tf.initializers.glorotUniform({seed});
  const input = tf.input({shape: [8, 6]});
  const attention = new FlashMultiHeadAttention({
    numHeads: 2, keyDim: 4, useCausalMask: true, kernelInitializer: seeded(3),
  }).apply(input) as tf.SymbolicTensor;
  const output = tf.layers.dense({units: 6, kernelInitializer: seeded(4)}).apply(attention) as tf.SymbolicTensor;
  const made = tf.model({inputs: input, outputs: output});
  made.compile({optimizer: tf.train.adam(0.02), loss: 'meanSquaredError'});
  return made;
}

/** Losses of model.fit, step by step, from the same weights and data on any backend. */
async function losses(backend: string): Promise<number[]> {
  await tf.setBackend(backend);
  const x = tf.tensor3d(Array.from({length: 16 * 8 * 6}, (_, n) => Math.sin(n * 12.9898)), [16, 8, 6]);
  const trained = model();
  const {history} = await trained.fit(x, x, {epochs: STEPS, batchSize: 16, shuffle: false, verbose: 0});
  trained.dispose();
  x.dispose();
  return history.loss as number[];
}

describe('model.fit with FlashMultiHeadAttention', () => {
  it('trains on tensorflow by the addon, step for step as on cpu', async () => {
    const {tensorflow: before} = nativeCalls();
    const actual = await losses('tensorflow');
    expect(nativeCalls().tensorflow - before).toBeGreaterThanOrEqual(2 * STEPS);
    const expected = await losses('cpu');
    expect(actual.at(-1)!).toBeLessThan(0.8 * actual[0]);
    actual.forEach((loss, n) => expect(loss).withContext(`step ${n}`).toBeCloseTo(expected[n], 4));
  });
});
