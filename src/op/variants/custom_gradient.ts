import {customGrad} from '@tensorflow/tfjs-core';
import type {GradSaveFunc, Tensor} from '@tensorflow/tfjs-core';

/**
 * tf.customGrad over an array of inputs, with types. To have gradients of any order, `gradients` is made of
 * differentiable ops and uses no tensors but its arguments (others may be disposed by then). It must not save a result
 * of `forward`: tfjs records the saving before the op itself, so a second gradient would miss what flows through it.
 * @param forward the value, and the tensors that `gradients` gets again as `saved`.
 * @param gradients one tensor for each input, of its shape.
 */
export function withGradients<T extends Tensor>(
    inputs: readonly Tensor[], forward: () => {value: T, saved: Tensor[]},
    gradients: (dy: T, saved: Tensor[]) => Tensor[]): T {
  return customGrad<T>((...args) => {
    const save = args[args.length - 1] as GradSaveFunc;
    const {value, saved} = forward();
    save(saved);
    return {value, gradFunc: gradients};
  })(...inputs);
}
