import * as tf from '@tensorflow/tfjs';

/** What a function with its own gradient gives: the value, and from dy and the saved tensors one gradient an input. */
export interface ValueAndGradient {
  value: tf.Tensor;
  gradient(dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[];
}

/** `tf.customGrad` with types that say which argument is which. */
export function withGradient(f: (inputs: tf.Tensor[], save: tf.GradSaveFunc) => ValueAndGradient):
    (...inputs: tf.Tensor[]) => tf.Tensor {
  return tf.customGrad((...given) => {
    const {value, gradient} = f(given.slice(0, -1) as tf.Tensor[], given[given.length - 1] as tf.GradSaveFunc);
    return {value, gradFunc: gradient};
  });
}
