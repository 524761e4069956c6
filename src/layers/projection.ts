import {add, matMul, reshape} from '@tensorflow/tfjs-core';
import type {Tensor} from '@tensorflow/tfjs-core';
import type {LayerVariable} from '@tensorflow/tfjs-layers';

/** One of the four linear maps of the layer; Keras' EinsumDense. */
export interface Projection {
  /** [...inputs, ...outputs] */
  readonly kernel: LayerVariable;
  /** [...outputs] */
  readonly bias?: LayerVariable;
}

/**
 * One matrix product, [B·T, inputs] × [inputs, outputs]: tfjs' einsum has no gradient, and a batched matMul would
 * multiply with a copy of the kernel for every batch. Not `fused.matMul`, which refuses a reshaped bias on wasm and
 * keeps its result alive for a gradient that has no use for it.
 * @param x any shape with B·T·inputs elements.
 * @param inputs product of the axes that the kernel contracts.
 * @returns [B·T, outputs]
 */
export function project(x: Tensor, {kernel, bias}: Projection, inputs: number): Tensor {
  const weights = kernel.read();
  const outputs = weights.size / inputs;
  const product = matMul(reshape(x, [x.size / inputs, inputs]), reshape(weights, [inputs, outputs]));
  return bias ? add(product, reshape(bias.read(), [outputs])) : product;
}
