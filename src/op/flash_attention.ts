import {op} from '@tensorflow/tfjs-core';
import type {Tensor, Tensor2D, Tensor3D, Tensor4D, TensorLike} from '@tensorflow/tfjs-core';

import {attend, broadcastTensor, drawSeed, optionTensors, rowsTensor} from './attend.js';
import type {Attended, Input, NamedInputs} from './attend.js';
import {ATTENTION_OPTIONS, checkOptionNames, layoutOf, resolveOptions} from './options.js';
import type {FlashAttentionOptions} from './options.js';
import {integersPerBatch, ownBatches, sequencesTensor} from './sequences.js';

/** Output of attention with the log-sum-exp of each row of scores. */
export interface AttentionWithLse<T extends Tensor = Tensor4D> {
  /** As q in shape, with the head size of v. */
  output: T;
  /** Natural-log-sum-exp of the masked, scaled scores, sinks included, [B,Hq,Nq]; −∞ where a query sees no key. */
  lse: Tensor3D;
}

/** `sequences` for lengths of padded tensors, where there are any. */
export function paddedSequences(
    {queryLengths, keyLengths}: Pick<FlashAttentionOptions, 'queryLengths'|'keyLengths'>, batch: number,
    queryLength: number, keyLength: number): Tensor2D|undefined {
  if (queryLengths === undefined && keyLengths === undefined) {
    return undefined;
  }
  const queries = queryLengths === undefined ? queryLength :
                                               integersPerBatch(queryLengths, 'queryLengths', batch, queryLength);
  const keys = keyLengths === undefined ? keyLength : integersPerBatch(keyLengths, 'keyLengths', batch, keyLength);
  return sequencesTensor(batch, [0, queries, 0, keys, ownBatches(batch)]);
}

/** Everything an options object holds that is a tensor, for tensors that are padded to common lengths. */
export function paddedOptionTensors(
    options: FlashAttentionOptions, batch: number, queryLength: number, keyLength: number): NamedInputs {
  const {mask, bias} = options;
  return {
    ...optionTensors(options),
    ...mask !== undefined && {mask: broadcastTensor(mask, 'mask', 'bool')},
    ...bias !== undefined && {bias: broadcastTensor(bias, 'bias', 'float32')},
    sequences: paddedSequences(options, batch, queryLength, keyLength),
  };
}

function attention(q: Input, k: Input, v: Input, options: FlashAttentionOptions, outputOnly: boolean): Attended {
  checkOptionNames(options, ATTENTION_OPTIONS);
  const layout = layoutOf(options.layout);
  const letters = layout === 'bhnd' ? ['[B,Hq,Nq,D]', '[B,Hkv,Nk,D]', '[B,Hkv,Nk,Dv]'] :
                                      ['[B,Nq,Hq,D]', '[B,Nk,Hkv,D]', '[B,Nk,Hkv,Dv]'];
  const query = rowsTensor(q, 'q', letters[0]);
  const key = rowsTensor(k, 'k', letters[1]);
  const value = rowsTensor(v, 'v', letters[2]);
  const resolved = resolveOptions(options, layout, query.shape[3]!, drawSeed);
  const rows = layout === 'bhnd' ? 2 : 1;
  const tensors = paddedOptionTensors(options, query.shape[0], query.shape[rows]!, key.shape[rows]!);
  return attend({q: query, k: key, v: value, ...tensors}, resolved, outputOnly);
}

function flashAttentionWithLse_<T extends Tensor = Tensor4D>(
    q: T|TensorLike, k: Input, v: Input, options: FlashAttentionOptions = {}): AttentionWithLse<T> {
  return attention(q, k, v, options, false) as AttentionWithLse<T>;
}

function flashAttention_<T extends Tensor = Tensor4D>(
    q: T|TensorLike, k: Input, v: Input, options: FlashAttentionOptions = {}): T {
  return attention(q, k, v, options, true).output as T;
}

/**
 * Exact softmax attention, computed tile by tile: softmax(softmaxScale·QKᵀ + bias + masks)·V, in memory that grows with
 * the lengths and not with their product (Dao et al., "FlashAttention", NeurIPS 2022; FlashAttention-2, 2023).
 * Differentiable in q, k, v, and in the options `bias` and `sinks`.
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
