import {op, randomUniform, reshape, tensor, Tensor, tidy, util} from '@tensorflow/tfjs-core';
import type {Tensor3D, Tensor4D, TensorLike} from '@tensorflow/tfjs-core';

import {shareGradientWork} from './gradient.js';
import {FLASH_ATTENTION, runAttentionKernel} from './kernels.js';
import type {AttentionAttrs, AttentionInputName} from './kernels.js';
import {invalid, resolveOptions} from './options.js';
import type {FlashAttentionOptions} from './options.js';
import {makeProblem} from './problem.js';

type Input = Tensor|TensorLike;

/** Output of attention with the log-sum-exp of each row of scores. */
export interface AttentionWithLse<T extends Tensor = Tensor4D> {
  /** As q in shape, with the head size of v. */
  output: T;
  /** Natural-log-sum-exp of the masked, scaled scores, [B,Hq,Nq]; −∞ where a query sees no key. */
  lse: Tensor3D;
}

function toTensor(value: Input, name: string): Tensor {
  if (value instanceof Tensor) {
    if (value.isDisposed) {
      throw invalid('a tensor that is not disposed', name, value);
    }
    return value;
  }
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) {
    throw invalid('a tensor or a nested array', name, value);
  }
  const t = name === 'mask' ? tensor(value, undefined, 'bool') : tensor(value);
  if (util.flatten(value).length !== t.size) {
    throw invalid('a nested array with rows of equal lengths', name, value);
  }
  return t;
}

function heads4D(value: Input, name: string, letters: string): Tensor4D {
  const t = toTensor(value, name);
  if (t.dtype !== 'float32' || t.rank !== 4) {
    throw invalid(`a float32 tensor of rank 4, ${letters}`, name, t);
  }
  return t as Tensor4D;
}

function mask4D(value: Input): Tensor4D {
  const t = toTensor(value, 'mask');
  if (t.dtype !== 'bool' || t.rank > 4) {
    throw invalid('a bool tensor that broadcasts to [B,Hq,Nq,Nk]', 'mask', t);
  }
  const leading = new Array<number>(4 - t.rank).fill(1);
  return reshape(t, [...leading, ...t.shape] as Tensor4D['shape']);
}

/** Integer in [0, 2⁴⁸) from tfjs' own generator. */
function drawSeed(): number {
  const [low, high] = tidy(() => randomUniform([2], 0, 2 ** 24).dataSync());
  return Math.floor(low) + Math.floor(high) * 2 ** 24;
}

function flashAttentionWithLse_<T extends Tensor = Tensor4D>(
    q: T|TensorLike, k: Input, v: Input, options: FlashAttentionOptions = {}): AttentionWithLse<T> {
  const letters = options?.layout === 'bhnd' ? ['[B,Hq,Nq,D]', '[B,Hkv,Nk,D]', '[B,Hkv,Nk,Dv]'] :
                                               ['[B,Nq,Hq,D]', '[B,Nk,Hkv,D]', '[B,Nk,Hkv,Dv]'];
  const query = heads4D(q, 'q', letters[0]);
  const key = heads4D(k, 'k', letters[1]);
  const value = heads4D(v, 'v', letters[2]);
  const resolved = resolveOptions(options, query.shape[3], drawSeed);
  const inputs: Tensor[] = [query, key, value];
  const inputNames: AttentionInputName[] = ['q', 'k', 'v'];
  const mask = options.mask === undefined ? undefined : mask4D(options.mask);
  if (mask) {
    inputs.push(mask);
    inputNames.push('mask');
  }
  makeProblem(query, key, value, resolved, mask);
  const attrs: AttentionAttrs = {...resolved, inputNames};
  const [output, lse] = runAttentionKernel(FLASH_ATTENTION, inputs, attrs);
  shareGradientWork(output, attrs);
  return {output: output as T, lse: lse as Tensor3D};
}

function flashAttention_<T extends Tensor = Tensor4D>(
    q: T|TensorLike, k: Input, v: Input, options: FlashAttentionOptions = {}): T {
  return flashAttentionWithLse_<T>(q, k, v, options).output;
}

/**
 * Exact softmax attention, computed tile by tile: softmax(softmaxScale·QKᵀ + masks)·V, in memory that grows with
 * the lengths and not with their product (Dao et al., "FlashAttention", NeurIPS 2022; FlashAttention-2, 2023).
 * Differentiable in q, k and v.
 *
 * ```js
 * const q = tf.randomNormal([2, 1024, 8, 64]);
 * const k = tf.randomNormal([2, 1024, 2, 64]);   // grouped-query attention: 4 query heads share one key head
 * const v = tf.randomNormal([2, 1024, 2, 64]);
 * const o = flashAttention(q, k, v, {causal: true});   // [2, 1024, 8, 64]
 * ```
 *
 * @param q float32 [B,Nq,Hq,D], or [B,Hq,Nq,D] with `layout: 'bhnd'`; 1 ≤ D ≤ 256.
 * @param k float32 [B,Nk,Hkv,D]; Hq is a multiple of Hkv.
 * @param v float32 [B,Nk,Hkv,Dv]; 1 ≤ Dv ≤ 256.
 * @param options see {@link FlashAttentionOptions}.
 * @returns float32 [B,Nq,Hq,Dv] (or [B,Hq,Nq,Dv]). A query that sees no key gives zeros.
 * @throws `flashAttention: expected … for …, received …` on bad input, before anything is allocated.
 */
export const flashAttention = /* @__PURE__ */ op({flashAttention_}) as typeof flashAttention_;

/**
 * {@link flashAttention} that also returns the log-sum-exp of each row of scores, as flash_attn's
 * `softmax_lse`. Both outputs are differentiable.
 */
export const flashAttentionWithLse =
    /* @__PURE__ */ op({flashAttentionWithLse_}) as unknown as typeof flashAttentionWithLse_;

