import {engine, getKernel, ready} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION_TUNE} from './kernels.js';
import type {TuneKernel, TuneReport} from './kernels.js';
import {checkOptionNames, invalid} from './options.js';
import {plannedCall} from './planned_call.js';
import type {CallShapeOptions, CallShapes, Gradients} from './planned_call.js';

/** What {@link tune} is to time. */
export interface TuneOptions {
  /** The backward pass too, as for `prepare`: then the fastest forward and backward together win. Default false. */
  gradients?: Gradients;
  /** For how long each kind is timed, in milliseconds, beside compiling. Default 200. */
  milliseconds?: number;
}

/**
 * Times the kinds of WebGPU kernels that can run a call on this device (`simt`, `subgroup`, `decode`; `matrix` where
 * `computeType` allows float16), and has the fastest run calls of its class from now on: those with the same head sizes
 * and options, and lengths and numbers of heads of the same power of two. It is remembered by adapter from one run to
 * the next: in a browser's localStorage, in Node in a file of the user's cache (the environment's
 * FLASH_ATTENTION_CACHE names another), until the kernels change. Optional: without it a fixed rule chooses.
 *
 * ```js
 * const {winner} = await tune({q: [1, 1, 32, 128], kCache: [1, 8192, 8, 128], vCache: [1, 8192, 8, 128]});
 * ```
 *
 * A kind whose results differ from the plainest one's by more than `computeType` allows takes no part. Runs on random
 * numbers in the memory of one call and its results, which it gives back. Nothing else should use the device meanwhile;
 * calls that overlap wait for each other.
 *
 * @param shapes of the call's tensors, as for `prepare`: `{q: [B,Nq,Hq,D], k: [B,Nk,Hkv,D], v: [B,Nk,Hkv,Dv]}`;
 *     `{qkv}` or `{q, kv}` packed; `{q, kCache, vCache}` over a cache. Sequences fill their tensors.
 * @param options of the call, with a shape in the place of each tensor, as for `prepare`.
 * @param what whether gradients will be asked for, and how long to time.
 * @returns what was timed, and what won.
 * @throws `flashAttention: expected … for …, received …` as the call would; where the current backend is not WebGPU's;
 *     where the device is lost or out of memory. Nothing is changed then.
 */
export async function tune(
    shapes: CallShapes, options: CallShapeOptions = {}, what: TuneOptions = {}): Promise<TuneReport> {
  checkOptionNames(what, ['gradients', 'milliseconds']);
  const {gradients = false, milliseconds = 200} = what;
  if (!(typeof milliseconds === 'number' && milliseconds > 0 && milliseconds < Infinity)) {
    throw invalid('a number above 0', 'milliseconds', milliseconds);
  }
  const {kernels} = plannedCall(shapes, options, gradients);
  await ready();
  const {backend, backendName} = engine();
  const kernel = getKernel(FLASH_ATTENTION_TUNE, backendName);
  if (!kernel) {
    throw new Error(
        `flashAttention: tune times kernels on WebGPU, and the backend '${backendName}' has one way to run a call; ` +
        'call `await enableWebGPU()` or `await tf.setBackend(\'webgpu\')` first');
  }
  return (kernel.kernelFunc as unknown as TuneKernel)(backend, kernels, milliseconds);
}
