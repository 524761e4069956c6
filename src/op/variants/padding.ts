import {concat, gather, op, reshape, Tensor, tensor1d, tidy, util, zeros} from '@tensorflow/tfjs-core';

import {toTensor} from '../attend.js';
import type {Input} from '../attend.js';
import {invalid} from '../options.js';
import {withGradients} from './custom_gradient.js';

/** Rows of several sequences end to end, and where they came from. */
export interface UnpaddedInput {
  /** [T,...]: the rows that the mask keeps, in their order. */
  readonly x: Tensor;
  /** [T]: the place of each among the B·N rows. */
  readonly indices: Int32Array;
  /** [B+1]: the first row of each sequence, and T (flash_attn `cu_seqlens`). */
  readonly cuSeqlens: Int32Array;
  /** Length of the longest sequence (flash_attn `max_seqlen_in_batch`). */
  readonly maxSeqlen: number;
}

/** Rows of `table` [rows,size], by number. */
function gatherRows(table: Tensor, rows: Int32Array): Tensor {
  const size = table.shape[1]!;
  return rows.length * size === 0 ? zeros([rows.length, size], table.dtype) : gather(table, tensor1d(rows, 'int32'));
}

// Each is the gradient of the other, and both are a gather: tfjs' own gradient of gather is missing on wasm, and its
// scatterND adds floats atomically on webgpu.

/** [T,size] from [total,size]. */
function takeRows(x: Tensor, indices: Int32Array, total: number): Tensor {
  return withGradients(
      [x], () => ({value: gatherRows(x, indices), saved: []}), dy => [placeRows(dy, indices, total)]);
}

/** [total,size] from [T,size], with zeros elsewhere. */
function placeRows(x: Tensor, indices: Int32Array, total: number): Tensor {
  return withGradients([x], () => {
    const sources = new Int32Array(total).fill(indices.length); // a row of zeros behind those of x
    indices.forEach((row, t) => {
      sources[row] = t;
    });
    return {value: gatherRows(concat([x, zeros([1, x.shape[1]!], x.dtype)]), sources), saved: []};
  }, dy => [takeRows(dy, indices, total)]);
}

function rowsOf(x: Input, leading: number, letters: string): Tensor {
  const t = toTensor(x, 'x');
  if ((t.dtype !== 'float32' && t.dtype !== 'int32') || t.rank < leading) {
    throw invalid(`a float32 or int32 tensor ${letters}`, 'x', t);
  }
  return t;
}

/** The mask's values on the host, [B·N]. */
function maskValues(mask: Input, batch: number, length: number): ArrayLike<number|boolean> {
  const expected = `a bool or int32 tensor or an array of shape [B,N] = [${batch},${length}]`;
  if (!(mask instanceof Tensor)) {
    if (!Array.isArray(mask) || mask.length !== batch ||
        mask.some(row => !(Array.isArray(row) || ArrayBuffer.isView(row)) ||
            (row as ArrayLike<unknown>).length !== length)) {
      throw invalid(expected, 'mask', mask);
    }
    return (mask as Array<ArrayLike<number|boolean>>).flatMap(row => Array.from(row));
  }
  if (mask.isDisposed || (mask.dtype !== 'bool' && mask.dtype !== 'int32') ||
      mask.shape.join() !== [batch, length].join()) {
    throw invalid(expected, 'mask', mask);
  }
  try {
    return mask.dataSync();
  } catch (cause) {
    // WebGPU outside of browsers, for one, cannot be read synchronously.
    const error = invalid(
        'a mask that can be read on the host, such as an array (pass `await mask.array()`),', 'mask', mask);
    error.cause = cause;
    throw error;
  }
}

/** What the mask says of the rows: everything of {@link UnpaddedInput} but x. */
function keptRows(mask: Input, batch: number, length: number): Omit<UnpaddedInput, 'x'> {
  const values = maskValues(mask, batch, length);
  const indices: number[] = [];
  const cuSeqlens = new Int32Array(batch + 1);
  let maxSeqlen = 0;
  for (let b = 0; b < batch; b++) {
    for (let row = b * length; row < (b + 1) * length; row++) {
      const value: unknown = values[row];
      if (value !== true && value !== false && value !== 1 && value !== 0) {
        throw invalid('booleans, or 1 and 0,', 'the values of mask', value);
      }
      if (value) {
        indices.push(row);
      }
    }
    cuSeqlens[b + 1] = indices.length;
    maxSeqlen = Math.max(maxSeqlen, cuSeqlens[b + 1] - cuSeqlens[b]);
  }
  return {indices: Int32Array.from(indices), cuSeqlens, maxSeqlen};
}

/**
 * Puts the rows that a mask keeps end to end, as flash_attn's `bert_padding.unpad_input`: the form of its varlen
 * attention. Differentiable in x. The mask's values decide the shape of the result, so they are read on the host.
 *
 * ```js
 * const {x: rows, indices, cuSeqlens, maxSeqlen} = unpadInput(hidden, mask);
 * const padded = padInput(rows, indices, batch, length);   // hidden, with zeros where the mask was false
 * ```
 *
 * @param x float32 or int32 [B,N,...]. On webgpu, tfjs copies integers exactly up to 2²⁴.
 * @param mask [B,N], true for the rows to keep, anywhere in a sequence: nested arrays of booleans or of 1 and 0, or a
 *     bool or int32 tensor of a backend that reads synchronously (for others pass `await mask.array()`).
 * @throws `flashAttention: expected … for …, received …`
 */
export function unpadInput(x: Input, mask: Input): UnpaddedInput {
  let kept: Omit<UnpaddedInput, 'x'>;
  // Not an op, which would look for tensors in each element of the arrays returned.
  const rows = tidy('unpadInput', () => {
    const padded = rowsOf(x, 2, '[B,N,...]');
    const [batch, length, ...rest] = padded.shape;
    kept = keptRows(mask, batch, length);
    const table = reshape(padded, [batch * length, util.sizeFromShape(rest)]);
    return reshape(takeRows(table, kept.indices, batch * length), [kept.indices.length, ...rest]);
  });
  return {x: rows, ...kept!};
}

function padInput_(x: Input, indices: ArrayLike<number>, batch: number, length: number): Tensor {
  for (const [name, value] of Object.entries({batch, length})) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw invalid('an integer of at least 0', name, value);
    }
  }
  const rows = rowsOf(x, 1, '[T,...]');
  const [count, ...rest] = rows.shape;
  const total = batch * length;
  if (!(Array.isArray(indices) || ArrayBuffer.isView(indices)) || indices.length !== count) {
    throw invalid(`an array of ${count} integers, one for each row of x,`, 'indices', indices);
  }
  const chosen = Array.from(indices);
  const wrong = chosen.find(row => !Number.isInteger(row) || row < 0 || row >= total);
  if (wrong !== undefined || new Set(chosen).size !== count) {
    throw invalid(`different integers from 0 to B·N − 1 = ${total - 1}`, 'indices', wrong ?? indices);
  }
  const table = reshape(rows, [count, util.sizeFromShape(rest)]);
  return reshape(placeRows(table, Int32Array.from(chosen), total), [batch, length, ...rest]);
}

/**
 * The inverse of {@link unpadInput}, as flash_attn's `bert_padding.pad_input`: rows go back to their places, all others
 * are 0. Differentiable in x.
 *
 * @param x float32 or int32 [T,...].
 * @param indices [T], from `unpadInput`: different integers in [0, B·N).
 * @param batch B.
 * @param length N.
 * @returns [B,N,...].
 * @throws `flashAttention: expected … for …, received …`
 */
export const padInput = /* @__PURE__ */ op({padInput_}) as typeof padInput_;
