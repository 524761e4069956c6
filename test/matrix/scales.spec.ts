import * as tf from '@tensorflow/tfjs';
import type {Tensor3D, Tensor4D} from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import {flashAttention, flashAttentionVarlen, flashAttentionWithKvCache} from '../../src/index.js';
import {SLOW_MS} from '../support/specs.js';
import {withLimits} from '../support/webgpu_device.js';

const SHAPE: [number, number, number, number] = [1, 40, 2, 16];
const NAMES = ['q', 'k', 'v', 'dOutput'] as const;

type Factors = {readonly [name in typeof NAMES[number]]?: number};

/** Output, dQ, dK, dV of random tensors times factors, each divided by what the factors make of it. */
async function results(factors: Factors, computeType: 'float16'|'float32'): Promise<number[][]> {
  const factor = (name: typeof NAMES[number]) => factors[name] ?? 1;
  const tensors = tf.tidy(() => {
    const [q, k, v, dOutput] = NAMES.map((name, n) =>
        tf.mul(tf.randomNormal(SHAPE, 0, 1, 'float32', 7 + n), factor(name)) as Tensor4D);
    const softmaxScale = 0.25 / factor('q') / factor('k');
    const attend = (...operands: tf.Tensor[]) =>
        flashAttention(...operands as [Tensor4D, Tensor4D, Tensor4D], {softmaxScale, computeType});
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
  for (const [kind, computeType, most] of [['matrix', 'float16', 1e-3], ['matrix_split', 'float32', 2e-6]] as const) {
    it(`are divided by powers of two where that takes it, each tensor by its own: ${kind}`, async () => {
      await tf.setBackend('webgpu');
      forcePlan(kind);
      const expected = await results({}, computeType);
      for (const factors of table) {
        const actual = await results(factors, computeType);
        const apart = actual.map(
            (values, n) => Math.max(...values.map((x, i) => Math.abs(x - expected[n][i]))) / Math.max(...expected[n]));
        for (const error of apart) {
          expect(error).withContext(JSON.stringify(factors)).toBeLessThan(most);
        }
      }
    }, SLOW_MS);
  }
});

describe('what f16 does not hold', () => {
  const SIZE = 8;
  const random = (shape: number[], seed: number, factor: number) =>
      tf.tidy(() => tf.mul(tf.randomNormal(shape, 0, 1, 'float32', seed), factor));

  /** The call by matrices with q, k and v times factors, against the same without: everything is made again. */
  async function expectAgain(call: (q: number, k: number, v: number) => tf.Tensor): Promise<void> {
    await tf.setBackend('webgpu');
    forcePlan('matrix');
    const values = async (...[q, k, v]: [number, number, number]) => {
      const result = tf.tidy(() => tf.div(call(q, k, v), v));
      const data = await result.data<'float32'>();
      result.dispose();
      return data;
    };
    const expected = await values(1, 1, 1);
    expect(expected.some(x => Math.abs(x) > 0.1)).toBeTrue();
    const all: Array<[number, number, number]> =
        [[2 ** 20, 1, 1], [1, 2 ** -20, 1], [1, 1, 2 ** 18], [2 ** -18, 2 ** 18, 2 ** -18]];
    // With 12 storage buffers a kernel of its own makes it again.
    for (const [maxStorageBuffersPerShaderStage, factors] of [16, 12].flatMap(n => all.map(f => [n, f] as const))) {
      let actual: Float32Array = new Float32Array();
      await withLimits({maxStorageBuffersPerShaderStage}, async () => {
        actual = await values(...factors);
      });
      const error = Math.max(...actual.map((x, n) => Math.abs(x - expected[n])));
      expect(error).withContext(factors.join()).toBeLessThan(2e-3);
    }
  }

  afterEach(() => forcePlan(undefined));

  it('is made again of sequences that lie end to end', () => expectAgain((q, k, v) => flashAttentionVarlen(
      random([70, 2, SIZE], 1, q) as Tensor3D, random([90, 2, SIZE], 2, k) as Tensor3D,
      random([90, 2, SIZE], 3, v) as Tensor3D, [0, 5, 42, 70], [0, 25, 60, 90],
      {causal: true, computeType: 'float16', softmaxScale: 0.4 / q / k})), SLOW_MS);

  it('is made again of pages of a cache, keys in parts', () => expectAgain((q, k, v) => flashAttentionWithKvCache(
      random([2, 9, 4, SIZE], 1, q) as Tensor4D, random([8, 16, 2, SIZE], 2, k) as Tensor4D,
      random([8, 16, 2, SIZE], 3, v) as Tensor4D, {
        blockTable: tf.tensor2d([7, 1, 4, 3, 2, 5, 6, 0], [2, 4], 'int32'), cacheLengths: [61, 37], numSplits: 2,
        computeType: 'float16', softmaxScale: 0.4 / q / k,
      })), SLOW_MS);
});
