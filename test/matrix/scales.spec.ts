import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import {flashAttention} from '../../src/index.js';
import {SLOW_MS} from '../support/specs.js';

const SHAPE: [number, number, number, number] = [1, 40, 2, 16];
const NAMES = ['q', 'k', 'v', 'dOutput'] as const;

type Factors = {readonly [name in typeof NAMES[number]]?: number};

/** Output, dQ, dK, dV of random tensors times factors, each divided by what the factors make of it. */
async function results(factors: Factors): Promise<number[][]> {
  const factor = (name: typeof NAMES[number]) => factors[name] ?? 1;
  const tensors = tf.tidy(() => {
    const [q, k, v, dOutput] = NAMES.map((name, n) =>
        tf.mul(tf.randomNormal(SHAPE, 0, 1, 'float32', 7 + n), factor(name)) as Tensor4D);
    const softmaxScale = 0.25 / factor('q') / factor('k');
    const attend = (...operands: tf.Tensor[]) =>
        flashAttention(...operands as [Tensor4D, Tensor4D, Tensor4D], {softmaxScale, computeType: 'float16'});
    const value = attend(q, k, v);
    const [dQ, dK, dV] = tf.grads(attend)([q, k, v], dOutput);
    const both = factor('v') * factor('dOutput');
    return [
      tf.div(value, factor('v')), tf.div(dQ, both / factor('q')), tf.div(dK, both / factor('k')),
      tf.div(dV, factor('dOutput')),
    ];
  });
  const values = await Promise.all(tensors.map(async tensor => [...await tensor.data()]));
  tf.dispose(tensors);
  return values;
}

describe('the copies in f16', () => {
  afterEach(() => forcePlan(undefined));

  // f16 holds neither numbers above 2^16 nor, with all their digits, those below 2^-14.
  const table: Factors[] = [
    {q: 2 ** 20}, {k: 2 ** -20}, {v: 2 ** 20}, {v: 2 ** -18}, {dOutput: 2 ** -18}, {dOutput: 2 ** 18},
    {q: 2 ** -20, k: 2 ** 18, v: 2 ** 17, dOutput: 2 ** -20},
  ];
  it('are divided by powers of two where that takes it, each tensor by its own', async () => {
    await tf.setBackend('webgpu');
    forcePlan('matrix');
    const expected = await results({});
    for (const factors of table) {
      const actual = await results(factors);
      const apart = actual.map(
          (values, n) => Math.max(...values.map((x, i) => Math.abs(x - expected[n][i]))) / Math.max(...expected[n]));
      for (const error of apart) {
        expect(error).withContext(JSON.stringify(factors)).toBeLessThan(1e-3);
      }
    }
  }, SLOW_MS);
});
