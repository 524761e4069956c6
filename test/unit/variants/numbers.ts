import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

/** What the specs of this folder compare with, and how. */

/** Each element within `tolerance` of the larger of 1 and its size; NaN and infinities exactly. */
export function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-5): void {
  expect(actual.length).toBe(expected.length);
  const wrong = Array.from(expected, (value, i) => {
    const close = Number.isFinite(value) ? Math.abs(actual[i] - value) <= tolerance * Math.max(1, Math.abs(value)) :
                                           Object.is(actual[i], value);
    return close ? '' : `element ${i} is ${actual[i]}, expected ${value}`;
  }).filter(text => text !== '');
  expect(wrong).toEqual([]);
}

/** Runs `f`, disposing what it returns: no tensor, byte or buffer more than before, no kept one lost. */
export function expectNothingLeft(f: () => tf.TensorContainer|null|undefined): void {
  const before = tf.memory();
  tf.dispose(f() ?? []);
  const after = tf.memory();
  for (const count of ['numTensors', 'numDataBuffers', 'numBytes'] as const) {
    expect(after[count]).withContext(count).toBe(before[count]);
  }
}

/** Makes `backend` the current one for the specs of a suite, and cpu again behind them. */
export function useBackend(backend: 'cpu'|'wasm'): void {
  beforeAll(async () => {
    expect(await tf.setBackend(backend)).toBeTrue();
  });
  afterAll(() => tf.setBackend('cpu'));
}

/** `f` throws exactly this, and leaves nothing behind. */
export function expectInvalid(f: () => unknown, message: string): void {
  expectNothingLeft(() => {
    expect(f).toThrowError(`flashAttention: expected ${message}`);
    return null;
  });
}

/** Gradient of a function of numbers by central differences. */
export function numericGradient(f: (x: readonly number[]) => number, x: readonly number[], step = 1e-5): number[] {
  return x.map((value, i) => {
    if (!Number.isFinite(value)) {
      return 0;
    }
    const at = (moved: number) => f(x.map((other, j) => j === i ? moved : other));
    return (at(value + step) - at(value - step)) / (2 * step);
  });
}

/** Σ a∘b. */
export const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((total, value, i) => total + value * b[i], 0);

/** Elements of [B,H,N,…] (each of `size` numbers) in the order [B,N,H,…], or back with the axes exchanged. */
export function swapHeadsAndRows<T>(values: readonly T[], [batch, a, b]: readonly number[], size: number): T[] {
  return Array.from({length: batch * a * b * size}, (_, place) => {
    const element = place % size;
    const [n, i, j] = [Math.floor(place / (size * a * b)), Math.floor(place / (size * a)) % b,
      Math.floor(place / size) % a];
    return values[((n * a + j) * b + i) * size + element];
  });
}
