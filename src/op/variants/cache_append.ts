import type {Tensor, Tensor2D, Tensor4D} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION_CACHE_APPEND, runAttentionKernel} from '../kernels.js';
import type {AppendInputName} from '../kernels.js';

/** What is written where. */
export interface Append {
  /** The cache: [Bc,capacity,Hkv,D] and [Bc,capacity,Hkv,Dv], or pages [pages,page size,Hkv,D] and [.., Dv]. */
  readonly k: Tensor4D;
  readonly v: Tensor4D;
  /** [B,Nnew,Hkv,D] and [B,Nnew,Hkv,Dv]. */
  readonly newK: Tensor4D;
  readonly newV: Tensor4D;
  /** [B,5]: (0, Nnew, first row written, Nnew, batch of the cache). Rows past the capacity are left out. */
  readonly sequences: Tensor2D;
  /** int32 [B,pages of a sequence]. */
  readonly blockTable?: Tensor2D;
}

/**
 * Writes rows into a cache and gives the cache's two tensors. On `webgpu`, `cpu`, `wasm` and, with the native addon on
 * a CPU, `tensorflow` they share the memory of those that came in, which hold the rows too: nothing is copied.
 * Elsewhere they are new tensors.
 * @param inPlace give an error where they would be new tensors.
 */
export function appendRows(append: Append, inPlace: boolean): [Tensor4D, Tensor4D] {
  const {newK, newV, k, v, sequences, blockTable} = append;
  const named: Array<[AppendInputName, Tensor]> =
      [['newK', newK], ['newV', newV], ['k', k], ['v', v], ['sequences', sequences]];
  if (blockTable) {
    named.push(['blockTable', blockTable]);
  }
  return runAttentionKernel(
      FLASH_ATTENTION_CACHE_APPEND, named.map(([, tensor]) => tensor),
      {inputNames: named.map(([name]) => name), inPlace}) as [Tensor4D, Tensor4D];
}
