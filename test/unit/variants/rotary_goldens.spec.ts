import {readFileSync} from 'node:fs';

import * as tf from '@tensorflow/tfjs';

import {applyRotaryEmbedding} from '../../../src/index.js';
import {Random} from '../../support/random.js';

/** A rotation as scripts/make_torch_goldens.py writes it: x and dY are drawn from the seed, in this order. */
interface Golden {
  readonly name: string;
  readonly seed: number;
  readonly shape: [number, number, number, number];
  readonly interleaved: boolean;
  readonly offset: number;
  readonly tableShape: [number, number];
  readonly cos: number[];
  readonly sin: number[];
  readonly output: number[];
  readonly dX: number[];
}

const {rotary} = JSON.parse(
    readFileSync(new URL('../../fixtures/torch_goldens.json', import.meta.url), 'utf8')) as {rotary: Golden[]};

function largestDifference(actual: ArrayLike<number>, expected: number[]): number {
  return expected.reduce((most, value, n) => {
    const difference = Math.abs(actual[n] - value);
    return difference <= most ? most : difference; // NaN stays
  }, 0);
}

describe('applyRotaryEmbedding against PyTorch', () => {
  beforeAll(() => tf.setBackend('cpu'));

  for (const {name, seed, shape, interleaved, offset, tableShape, ...golden} of rotary) {
    it(`rotates as ${name} does, forward and backward`, () => {
      const random = new Random(seed);
      const size = tf.util.sizeFromShape(shape);
      tf.tidy(() => {
        const x = tf.tensor4d(random.sixtyFourths(size), shape);
        const dY = tf.tensor4d(random.sixtyFourths(size), shape);
        const [cos, sin] = [golden.cos, golden.sin].map(values => tf.tensor2d(values, tableShape));
        const f = (t: tf.Tensor) => applyRotaryEmbedding(t, cos, sin, {interleaved, offsets: offset});
        const [output, dX] = [f(x).dataSync(), tf.grad(f)(x, dY).dataSync()];
        expect(output.length).toBe(golden.output.length);
        // float32 against float64 of numbers up to 2 in size.
        expect(largestDifference(output, golden.output)).toBeLessThan(5e-7);
        expect(largestDifference(dX, golden.dX)).toBeLessThan(5e-7);
      });
    });
  }
});
