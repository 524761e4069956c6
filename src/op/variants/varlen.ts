import {op, Tensor} from '@tensorflow/tfjs-core';
import type {Tensor2D, Tensor3D, TensorLike} from '@tensorflow/tfjs-core';

import {attend, drawSeed, optionTensors, rowsTensor} from '../attend.js';
import type {Attended, Input, NamedInputs} from '../attend.js';
import {checkOptionNames, COMMON_OPTIONS, invalid, resolveOptions} from '../options.js';
import type {CommonOptions} from '../options.js';
import {ownBatches, sequencesTensor} from '../sequences.js';

/**
 * Options where sequences lie end to end: those of `flashAttention` without `layout`, without lengths, which the
 * offsets give, and without `mask` and `bias`, which would need rows and columns for sequences of different lengths.
 */
export type VarlenAttentionOptions = CommonOptions;

/** Output of attention over sequences end to end. */
export interface VarlenAttentionWithLse {
  /** [Tq,Hq,Dv]. */
  output: Tensor3D;
  /** [Hq,Tq], as flash_attn's varlen softmax_lse. */
  lse: Tensor2D;
}

const UNSUPPORTED: Record<string, string> = {
  mask: 'no mask: sequences of different lengths have no common rows and columns; use queryLengths with flashAttention',
  bias: 'no bias: sequences of different lengths have no common rows and columns; use queryLengths with flashAttention',
  queryLengths: 'no queryLengths: cuSeqlensQ gives the lengths',
  keyLengths: 'no keyLengths: cuSeqlensK gives the lengths',
};

function checkNames(options: VarlenAttentionOptions) {
  for (const name of Object.keys(options ?? {})) {
    if (Object.hasOwn(UNSUPPORTED, name)) {
      throw invalid(UNSUPPORTED[name], 'the options of varlen attention', options[name as keyof CommonOptions]);
    }
  }
  checkOptionNames(options, COMMON_OPTIONS);
}

/** Offsets decide what is computed, so they are read on the host and checked: 0 = first ≤ … ≤ last = total. */
function offsetsOf(value: Tensor|TensorLike, name: string, total: number): number[] {
  let values: unknown = value;
  if (value instanceof Tensor) {
    if (value.isDisposed || value.dtype !== 'int32' || value.rank !== 1) {
      throw invalid('an int32 tensor or an array of shape [B+1]', name, value);
    }
    try {
      values = value.dataSync();
    } catch (cause) {
      // WebGPU outside of browsers, for one, cannot be read synchronously.
      const error = invalid('offsets that can be read on the host (pass `await offsets.array()`)', name, value);
      error.cause = cause;
      throw error;
    }
  }
  if (!Array.isArray(values) && !ArrayBuffer.isView(values)) {
    throw invalid('an int32 tensor or an array of shape [B+1]', name, value);
  }
  const offsets = Array.from(values as ArrayLike<number>);
  if (offsets.length < 2 || !offsets.every(Number.isInteger)) {
    throw invalid('at least 2 integers, [B+1]', name, offsets);
  }
  const decreasing = offsets.findIndex((offset, b) => b > 0 && offset < offsets[b - 1]);
  if (decreasing > 0) {
    throw invalid('offsets that never decrease', name, offsets.slice(decreasing - 1, decreasing + 1));
  }
  if (offsets[0] !== 0 || offsets[offsets.length - 1] !== total) {
    throw invalid(`offsets from 0 to the number of rows, ${total}`, name,
                  [offsets[0], offsets[offsets.length - 1]]);
  }
  return offsets;
}

/** All forms of varlen attention, once their tensors are there. */
function attendVarlen(
    rows: NamedInputs, cuSeqlensQ: Tensor|TensorLike, cuSeqlensK: Tensor|TensorLike, options: VarlenAttentionOptions,
    names: [string, string], outputOnly = true): Attended {
  const queries = (rows.q ?? rows.qkv)!;
  const keys = (rows.k ?? rows.kv ?? rows.qkv)!;
  const queryOffsets = offsetsOf(cuSeqlensQ, names[0], queries.shape[0]);
  const keyOffsets = offsetsOf(cuSeqlensK, names[1], keys.shape[0]);
  if (keyOffsets.length !== queryOffsets.length) {
    throw invalid(`as many offsets as ${names[0]}, ${queryOffsets.length}`, names[1], keyOffsets);
  }
  const resolved = resolveOptions(options, 'thd', queries.shape[queries.rank - 1]!, drawSeed);
  const batch = queryOffsets.length - 1;
  const lengths = (offsets: number[]) => offsets.slice(1).map((end, b) => end - offsets[b]);
  const sequences = sequencesTensor(batch, [
    queryOffsets.slice(0, -1), lengths(queryOffsets), keyOffsets.slice(0, -1), lengths(keyOffsets), ownBatches(batch),
  ]);
  return attend({...rows, ...optionTensors(options), sequences}, {...resolved, queryOffsets, keyOffsets}, outputOnly);
}

function attentionVarlen(
    q: Input, k: Input, v: Input, cuSeqlensQ: Tensor|TensorLike, cuSeqlensK: Tensor|TensorLike,
    options: VarlenAttentionOptions, outputOnly: boolean): Attended {
  checkNames(options);
  const rows = {
    q: rowsTensor(q, 'q', '[Tq,Hq,D]'), k: rowsTensor(k, 'k', '[Tk,Hkv,D]'), v: rowsTensor(v, 'v', '[Tk,Hkv,Dv]'),
  };
  return attendVarlen(rows, cuSeqlensQ, cuSeqlensK, options, ['cuSeqlensQ', 'cuSeqlensK'], outputOnly);
}

function flashAttentionVarlenWithLse_(
    q: Input, k: Input, v: Input, cuSeqlensQ: Tensor|TensorLike, cuSeqlensK: Tensor|TensorLike,
    options: VarlenAttentionOptions = {}): VarlenAttentionWithLse {
  return attentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK, options, false) as VarlenAttentionWithLse;
}

function flashAttentionVarlen_(
    q: Input, k: Input, v: Input, cuSeqlensQ: Tensor|TensorLike, cuSeqlensK: Tensor|TensorLike,
    options: VarlenAttentionOptions = {}): Tensor3D {
  return attentionVarlen(q, k, v, cuSeqlensQ, cuSeqlensK, options, true).output as Tensor3D;
}

/**
 * `flashAttention` of sequences of different lengths that lie end to end, without padding (flash_attn's
 * `flash_attn_varlen_func`). Each sequence attends to itself only. Lengths of 0 are fine on either side.
 *
 * ```js
 * // Three sequences of 5, 0 and 3 rows.
 * const o = flashAttentionVarlen(q, k, v, [0, 5, 5, 8], [0, 5, 5, 8], {causal: true});   // q [8,Hq,D] → [8,Hq,Dv]
 * ```
 *
 * @param q float32 [Tq,Hq,D].
 * @param k float32 [Tk,Hkv,D].
 * @param v float32 [Tk,Hkv,Dv].
 * @param cuSeqlensQ [B+1]: where each sequence starts in q, and Tq. An array, or an int32 tensor that can be read on
 *     the host. Decreasing offsets, or ends other than 0 and Tq, are refused.
 * @param cuSeqlensK [B+1]: the same for k and v.
 * @param options see {@link VarlenAttentionOptions}.
 * @returns float32 [Tq,Hq,Dv].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionVarlen = /* @__PURE__ */ op({flashAttentionVarlen_}) as typeof flashAttentionVarlen_;

/** {@link flashAttentionVarlen} that also returns the LSE [Hq,Tq]. */
export const flashAttentionVarlenWithLse =
    /* @__PURE__ */ op({flashAttentionVarlenWithLse_}) as unknown as typeof flashAttentionVarlenWithLse_;

function flashAttentionVarlenQkvPacked_(
    qkv: Input, cuSeqlens: Tensor|TensorLike, options: VarlenAttentionOptions = {}): Tensor3D {
  checkNames(options);
  const packed = rowsTensor(qkv, 'qkv', '[T,3,H,D]');
  if (packed.shape[1] !== 3) {
    throw invalid('an axis of 3 (q, k and v) before the heads', 'qkv', packed);
  }
  return attendVarlen({qkv: packed}, cuSeqlens, cuSeqlens, options, ['cuSeqlens', 'cuSeqlens']).output as Tensor3D;
}

/**
 * {@link flashAttentionVarlen} of q, k and v side by side in one tensor, with a packed gradient (flash_attn's
 * `flash_attn_varlen_qkvpacked_func`).
 *
 * @param qkv float32 [T,3,H,D].
 * @param cuSeqlens [B+1], as `cuSeqlensQ` of {@link flashAttentionVarlen}.
 * @returns float32 [T,H,D].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionVarlenQkvPacked =
    /* @__PURE__ */ op({flashAttentionVarlenQkvPacked_}) as typeof flashAttentionVarlenQkvPacked_;

function flashAttentionVarlenKvPacked_(
    q: Input, kv: Input, cuSeqlensQ: Tensor|TensorLike, cuSeqlensK: Tensor|TensorLike,
    options: VarlenAttentionOptions = {}): Tensor3D {
  checkNames(options);
  const packed = rowsTensor(kv, 'kv', '[Tk,2,Hkv,D]');
  if (packed.shape[1] !== 2) {
    throw invalid('an axis of 2 (k and v) before the heads', 'kv', packed);
  }
  const rows = {q: rowsTensor(q, 'q', '[Tq,Hq,D]'), kv: packed};
  return attendVarlen(rows, cuSeqlensQ, cuSeqlensK, options, ['cuSeqlensQ', 'cuSeqlensK']).output as Tensor3D;
}

/**
 * {@link flashAttentionVarlen} of k and v side by side in one tensor, with a packed gradient (flash_attn's
 * `flash_attn_varlen_kvpacked_func`).
 *
 * @param q float32 [Tq,Hq,D].
 * @param kv float32 [Tk,2,Hkv,D].
 * @returns float32 [Tq,Hq,D].
 * @throws `flashAttention: expected … for …, received …`
 */
export const flashAttentionVarlenKvPacked =
    /* @__PURE__ */ op({flashAttentionVarlenKvPacked_}) as typeof flashAttentionVarlenKvPacked_;
