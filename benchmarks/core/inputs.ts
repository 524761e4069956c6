import * as tf from '@tensorflow/tfjs';

const AMPLITUDE = 1.7;

/**
 * Numbers in [−1.7, 1.7], spread on the device: tfjs draws random tensors on the host, which takes seconds for the
 * largest of these. Another `seed` gives others.
 */
export function spreadNumbers(shape: [number, number, number, number], seed: number): tf.Tensor4D {
  if (!('device' in tf.backend())) {
    return hostNumbers(shape, seed);
  }
  return tf.tidy(() => {
    const size = shape[3];
    const place = (count: number, period: number) => tf.mod(tf.mul(tf.range(0, count), period), 2 * Math.PI);
    const rows = tf.reshape(place(shape[0] * shape[1] * shape[2], 12.9898 + seed), [-1, 1]);
    const columns = tf.reshape(place(size, 78.233 + seed), [1, -1]);
    const noise = tf.sin(tf.mul(tf.sin(tf.add(rows, columns)), 4375.5453 + seed));
    return tf.reshape(tf.mul(noise, AMPLITUDE), shape) as tf.Tensor4D;
  });
}

/** The same on the host, for backends that compute there. */
function hostNumbers(shape: [number, number, number, number], seed: number): tf.Tensor4D {
  const values = new Float32Array(tf.util.sizeFromShape(shape));
  let state = 12345 + 7919 * seed;
  for (let n = 0; n < values.length; n++) {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    values[n] = 2 * AMPLITUDE * (state / 2 ** 32 - 0.5);
  }
  return tf.tensor4d(values, shape);
}

/** Why no tensor of these bytes can be an operand of tfjs' own ops on the current device, if so. */
export function bindingProblem(what: string, bytes: number): string|undefined {
  const {device} = tf.backend() as unknown as {device?: GPUDevice};
  const largest = device ? device.limits.maxStorageBufferBindingSize : 4 * 2 ** 30;
  return bytes > largest ? `${what} of ${bytes} bytes is over the ${largest} of a binding` : undefined;
}

/** The nested arrays of inputs rotate, so that what a run reads is not still in the cache from the one before. */
export function rotations(bytes: number, cacheBytes: number, most: number): number {
  return Math.min(most, Math.max(1, Math.ceil(cacheBytes / bytes)));
}
