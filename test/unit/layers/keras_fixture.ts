import {readFileSync} from 'node:fs';

import * as tf from '@tensorflow/tfjs';

/** A tensor as scripts/make_keras_fixture.py packs it. */
export interface Packed {
  shape: number[];
  values: number[];
}

export interface LayerCase {
  name: string;
  class_name: string;
  config: tf.serialization.ConfigDict&{name: string};
  weights: Record<string, Packed>;
  inputs: {query: Packed, value?: Packed, key?: Packed};
  call: Record<string, Packed|boolean>;
  dy: Packed;
  output: Packed;
  gradients: Record<string, Packed>;
  /** [B,T]: queries whose output Keras defines. */
  kept?: Packed;
}

export interface ModelCase {
  name: string;
  weights: Record<string, Packed>;
  inputs: Packed[];
  output: Packed;
  kept: Packed;
}

export interface KerasFixture {
  versions: Record<string, string>;
  layers: LayerCase[];
  models: ModelCase[];
  keras_2: {topology: object, weights: Record<string, Packed>, inputs: Packed[], output: Packed, kept: Packed};
}

export const kerasFixture = JSON.parse(
    readFileSync(new URL('../../fixtures/keras_multi_head_attention.json', import.meta.url), 'utf8')) as KerasFixture;

export const unpack = (packed: Packed, dtype: 'float32'|'bool'|'int32' = 'float32') =>
    tf.tensor(packed.values, packed.shape, dtype);

export const unpackAll = (weights: Record<string, Packed>): tf.NamedTensorMap =>
    Object.fromEntries(Object.entries(weights).map(([name, packed]) => [name, unpack(packed)]));

/**
 * Keras computed the fixture in float64 from numbers that float32 holds exactly. A result is equal when its largest
 * error is at most 1e-6 of the largest expected element (or of 1, where all are smaller); NaN is never equal.
 * @param kept [rows]: compare only these rows of the expected [rows, …].
 * @returns the error in those terms.
 */
export function expectEqual(what: string, actual: tf.Tensor, expected: Packed, kept?: Packed): number {
  expect(actual.shape).withContext(what).toEqual(expected.shape);
  const rowSize = kept ? expected.values.length / kept.values.length : 1;
  const judged = (i: number) => !kept || kept.values[Math.floor(i / rowSize)] === 1;
  const values = actual.dataSync();
  let error = 0;
  let magnitude = 1;
  expected.values.forEach((value, i) => {
    if (judged(i)) {
      const difference = Math.abs(values[i] - value);
      error = difference <= error ? error : difference;
      magnitude = Math.max(magnitude, Math.abs(value));
    }
  });
  expect(error / magnitude).withContext(`${what}: error relative to the largest element`).toBeLessThanOrEqual(1e-6);
  return error / magnitude;
}

/** Largest difference between two tensors of one shape; NaN if there is any. */
export function distance(a: tf.Tensor, b: tf.Tensor): number {
  expect(a.shape).toEqual(b.shape);
  return tf.tidy(() => tf.max(tf.abs(tf.sub(a, b))).dataSync()[0]);
}
