import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {flashAttention} from '../../src/index.js';

import {SLOW_MS} from './specs.js';

export const SIZE = 16;

export type Sees = (query: number, key: number) => boolean;

/** What hides tiles of keys before, behind and between those that are seen, and pairs within tiles. */
export const MASKS: {readonly [what: string]: Sees} = {
  'all but the last keys': (_, key) => key < 141,
  'the last keys': (_, key) => key >= 83,
  'every third block of 32 keys': (_, key) => (key >> 5) % 3 === 2,
  'keys at random': (query, key) => (query * 7919 + key * 104729 >> 3) % 3 === 0,
  'blocks on the diagonal': (query, key) => query >> 6 === key >> 6,
  'nothing from a third of the queries': query => query % 3 !== 0,
  'nothing': () => false,
};

export interface Inputs {
  readonly q: Tensor4D;
  readonly k: Tensor4D;
  readonly v: Tensor4D;
}

export function makeInputs(queries: number, keys: number): Inputs {
  const random = (rows: number, seed: number) => tf.randomNormal([1, rows, 1, SIZE], 0, 1, 'float32', seed) as Tensor4D;
  return {q: random(queries, 1), k: random(keys, 2), v: random(keys, 3)};
}

export function maskTensor(sees: Sees, queries: number, keys: number): tf.Tensor {
  const shown = Uint8Array.from({length: queries * keys}, (_, n) => Number(sees(Math.floor(n / keys), n % keys)));
  return tf.tensor(shown, [1, 1, queries, keys], 'bool');
}

/** Output, dQ, dK and dV, one after the other. */
async function resultsOf(kind: PlanKind, {q, k, v}: Inputs, options: object): Promise<number[][]> {
  forcePlan(kind);
  const computeType = kind === 'matrix' ? 'float16' : 'float32';
  const tensors = tf.tidy(() => {
    const dOutput = tf.randomNormal(q.shape, 0, 1, 'float32', 4);
    const {value, grads} = tf.valueAndGrads(
        (...operands: tf.Tensor[]) =>
          flashAttention(...operands as [Tensor4D, Tensor4D, Tensor4D], {...options, computeType}) as tf.Tensor)(
        [q, k, v], dOutput);
    return [value, ...grads];
  });
  const values = await Promise.all(tensors.map(async tensor => [...await tensor.data()]));
  tf.dispose(tensors);
  return values;
}

/**
 * With masks that touch some tiles and not others, output and gradients are those of `simt` with a bias of 0 and −∞ in
 * place of the mask, for which every pair is looked at.
 * @param most difference, in parts of the largest element.
 */
export async function expectMaskedGradients(
    kind: PlanKind, queries: number, keys: number, most: number): Promise<void> {
  const inputs = makeInputs(queries, keys);
  const masks: typeof MASKS = {
    ...MASKS, everything: () => true,
    // Tiles that it hides, shows and cuts, in turn.
    'the first keys, and from query 100 on the last': (query, key) => key < 70 || query >= 100 && key >= 128,
  };
  for (const [what, sees] of Object.entries(masks)) {
    const mask = maskTensor(sees, queries, keys);
    const bias = tf.tidy(() => tf.where(mask, tf.zerosLike(mask).cast('float32'), tf.fill(mask.shape, -Infinity)));
    const actual = await resultsOf(kind, inputs, {mask});
    const expected = await resultsOf('simt', inputs, {bias});
    actual.forEach((values, n) => {
      const largest = Math.max(1, ...expected[n].map(Math.abs));
      const apart = Math.max(...values.map((x, i) => Number.isNaN(x) ? Infinity : Math.abs(x - expected[n][i])));
      expect(apart / largest).withContext(`${what}: ${['output', 'dQ', 'dK', 'dV'][n]}`).toBeLessThan(most);
    });
    tf.dispose([mask, bias]);
  }
  tf.dispose(Object.values(inputs));
}

/** Specs of it. Rows of a multiple of four keys are read in another way. */
export function specMaskedGradients(kind: PlanKind, most: number, lengths: readonly number[] = [200, 203]): void {
  for (const length of lengths) {
    it(`are the same as with a bias that hides: ${kind}, ${length} keys`,
        () => expectMaskedGradients(kind, length, length, most), SLOW_MS);
  }
}
