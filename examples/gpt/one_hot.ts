import * as tf from '@tensorflow/tfjs';

/**
 * Numbers [R] → float32 rows [R,count] with a single one. By way of integers: asked for float32, the one-hot kernel of
 * tfjs' wasm backend (4.22) writes the integer's bits into the float tensor.
 */
export function oneHotRows(ids: tf.Tensor, count: number): tf.Tensor2D {
  return tf.tidy(() => tf.cast(tf.oneHot(tf.cast(ids, 'int32') as tf.Tensor1D, count), 'float32') as tf.Tensor2D);
}
