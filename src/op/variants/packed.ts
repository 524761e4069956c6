import {op} from '@tensorflow/tfjs-core';
import type {Tensor4D} from '@tensorflow/tfjs-core';

import {attend, drawSeed, rowsTensor} from '../attend.js';
import type {Attended, Input} from '../attend.js';
import {paddedOptionTensors} from '../flash_attention.js';
import type {AttentionWithLse} from '../flash_attention.js';
import {ATTENTION_OPTIONS, checkOptionNames, invalid, resolveOptions} from '../options.js';
import type {FlashAttentionOptions} from '../options.js';

/** Options of attention over packed tensors: all of {@link FlashAttentionOptions} but `layout`, which is `'bnhd'`. */
export type PackedAttentionOptions = Omit<FlashAttentionOptions, 'layout'>;

const OPTIONS = ATTENTION_OPTIONS.filter(name => name !== 'layout');

function attentionQkvPacked(qkv: Input, options: PackedAttentionOptions, outputOnly: boolean): Attended {
  checkOptionNames(options, OPTIONS);
  const packed = rowsTensor(qkv, 'qkv', '[B,N,3,H,D]');
  const [batch, length, parts, , headSize] = packed.shape as number[];
  if (parts !== 3) {
    throw invalid('an axis of 3 (q, k and v) before the heads', 'qkv', packed);
  }
  const resolved = resolveOptions(options, 'bnhd', headSize, drawSeed);
  const tensors = paddedOptionTensors(options, batch, length, length);
  return attend({qkv: packed, ...tensors}, resolved, outputOnly);
}

function flashAttentionQkvPackedWithLse_(
    qkv: Input, options: PackedAttentionOptions = {}): AttentionWithLse<Tensor4D> {
  return attentionQkvPacked(qkv, options, false) as AttentionWithLse;
}

function flashAttentionQkvPacked_(qkv: Input, options: PackedAttentionOptions = {}): Tensor4D {
  return attentionQkvPacked(qkv, options, true).output as Tensor4D;
}

/**
 * `flashAttention` of q, k and v that lie side by side in one tensor, as one projection gives them (flash_attn's
 * `flash_attn_qkvpacked_func`). Nothing is sliced or copied, and the gradient comes packed the same way.
 *
 * @param qkv float32 [B,N,3,H,D].
 * @param options see {@link PackedAttentionOptions}.
 * @returns float32 [B,N,H,D].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionQkvPacked =
    /* @__PURE__ */ op({flashAttentionQkvPacked_}) as typeof flashAttentionQkvPacked_;

/** {@link flashAttentionQkvPacked} that also returns the LSE [B,H,N]. */
export const flashAttentionQkvPackedWithLse =
    /* @__PURE__ */ op({flashAttentionQkvPackedWithLse_}) as unknown as typeof flashAttentionQkvPackedWithLse_;

function attentionKvPacked(q: Input, kv: Input, options: PackedAttentionOptions, outputOnly: boolean): Attended {
  checkOptionNames(options, OPTIONS);
  const query = rowsTensor(q, 'q', '[B,Nq,Hq,D]');
  const packed = rowsTensor(kv, 'kv', '[B,Nk,2,Hkv,D]');
  const [batch, queryLength, , headSize] = query.shape as number[];
  const [, keyLength, parts] = packed.shape as number[];
  if (parts !== 2) {
    throw invalid('an axis of 2 (k and v) before the heads', 'kv', packed);
  }
  const resolved = resolveOptions(options, 'bnhd', headSize, drawSeed);
  const tensors = paddedOptionTensors(options, batch, queryLength, keyLength);
  return attend({q: query, kv: packed, ...tensors}, resolved, outputOnly);
}

function flashAttentionKvPackedWithLse_(
    q: Input, kv: Input, options: PackedAttentionOptions = {}): AttentionWithLse<Tensor4D> {
  return attentionKvPacked(q, kv, options, false) as AttentionWithLse;
}

function flashAttentionKvPacked_(q: Input, kv: Input, options: PackedAttentionOptions = {}): Tensor4D {
  return attentionKvPacked(q, kv, options, true).output as Tensor4D;
}

/**
 * `flashAttention` of k and v that lie side by side in one tensor (flash_attn's `flash_attn_kvpacked_func`). Nothing is
 * sliced or copied, and their gradient comes packed the same way.
 *
 * @param q float32 [B,Nq,Hq,D].
 * @param kv float32 [B,Nk,2,Hkv,D]; Hq is a multiple of Hkv.
 * @param options see {@link PackedAttentionOptions}.
 * @returns float32 [B,Nq,Hq,D].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionKvPacked =
    /* @__PURE__ */ op({flashAttentionKvPacked_}) as typeof flashAttentionKvPacked_;

/** {@link flashAttentionKvPacked} that also returns the LSE [B,Hq,Nq]. */
export const flashAttentionKvPackedWithLse =
    /* @__PURE__ */ op({flashAttentionKvPackedWithLse_}) as unknown as typeof flashAttentionKvPackedWithLse_;
