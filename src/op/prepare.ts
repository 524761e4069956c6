import {engine, getKernel, ready} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION_PREPARE} from './kernels.js';
import type {PrepareKernel} from './kernels.js';
import {checkOptionNames} from './options.js';
import {plannedCall} from './planned_call.js';
import type {CallShapeOptions, CallShapes, Gradients} from './planned_call.js';

/** What {@link prepare} is to get ready beside the forward pass. */
export interface PrepareOptions {
  /** The backward pass too: of all inputs that have a gradient, or of some. Default false. */
  gradients?: Gradients;
  /**
   * With `gradients`: the loss depends on the LSE too, as after `mergeAttention` or where a `…WithLse` function's LSE
   * is used. Default false. Other kernels are compiled for it, and a model may well need both: then prepare twice.
   */
  lseGradient?: boolean;
}

/**
 * Compiles the kernels of a call in the background, so that the first call does not wait for that: on WebGPU some
 * tenths of a second for each kernel, seconds on some devices. On other backends there is nothing to compile.
 *
 * ```js
 * const shape = [8, 1024, 16, 64];
 * await prepare({q: shape, k: shape, v: shape}, {causal: true}, {gradients: true});
 * ```
 *
 * @param shapes of the call's tensors, by the names of its arguments: `{q, k, v}`; `{qkv}` or `{q, kv}` packed;
 *     `{q, kCache, vCache}` over a cache, with `{k, v}` where rows are appended. A tensor counts for its shape.
 * @param options of the call, with a shape in the place of each tensor. Sequences end to end have `cuSeqlensQ` and
 *     `cuSeqlensK` here.
 * @param what whether gradients will be asked for.
 * @throws `flashAttention: expected … for …, received …` as the call would; where a kernel does not compile, with line,
 *     column and the whole shader.
 */
export async function prepare(
    shapes: CallShapes, options: CallShapeOptions = {}, what: PrepareOptions = {}): Promise<void> {
  checkOptionNames(what, ['gradients', 'lseGradient']);
  const {kernels} = plannedCall(shapes, options, what.gradients ?? false, what.lseGradient);
  await ready();
  const {backend, backendName} = engine();
  const kernel = getKernel(FLASH_ATTENTION_PREPARE, backendName);
  if (kernel) {
    await (kernel.kernelFunc as unknown as PrepareKernel)(backend, kernels);
  }
}
