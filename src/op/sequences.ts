import {stack, tensor, Tensor, tensor2d, tidy, zeros} from '@tensorflow/tfjs-core';
import type {Tensor1D, Tensor2D, TensorLike} from '@tensorflow/tfjs-core';

import {invalid} from './options.js';

/**
 * Kernels learn where each sequence lies from one int32 tensor [B,5]: first row of q, number of queries, first row of
 * k, number of keys, and batch of k and v. Rows count from the batch's own first row (from the tensor's with layout
 * `thd`). Kernels bring numbers below 0 or beyond the tensors to the nearest bound.
 */
export const SEQUENCE_FIELDS = 5;

/** A column of that tensor: values of the host, a tensor [B], or the same for all. */
export type Column = readonly number[]|Tensor1D|number;

/**
 * Integers for each batch from a call's argument. The values of arrays are checked here; those of tensors would have to
 * be read back from the device, so kernels bound them instead.
 */
export function integersPerBatch(
    value: Tensor|TensorLike, name: string, batch: number, most: number): number[]|Tensor1D {
  if (value instanceof Tensor) {
    if (value.isDisposed || value.dtype !== 'int32' || value.rank !== 1 || value.shape[0] !== batch) {
      throw invalid(`an int32 tensor or an array of shape [B] = [${batch}]`, name, value);
    }
    return value as Tensor1D;
  }
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) {
    throw invalid(`an int32 tensor or an array of shape [B] = [${batch}]`, name, value);
  }
  const values = Array.from(value as ArrayLike<number>);
  if (values.length !== batch || !values.every(n => Number.isInteger(n) && n >= 0 && n <= most)) {
    throw invalid(`${batch} integers from 0 to ${most}`, name, values);
  }
  return values;
}

/** The tensor of {@link SEQUENCE_FIELDS}, put together on the host where all columns are there. */
export function sequencesTensor(batch: number, columns: readonly [Column, Column, Column, Column, Column]): Tensor2D {
  if (columns.some(column => column instanceof Tensor)) {
    return tidy(() => stack(columns.map(column => {
      if (typeof column === 'number') {
        return column === 0 ? zeros([batch], 'int32') : tensor(new Int32Array(batch).fill(column), [batch], 'int32');
      }
      return column instanceof Tensor ? column : tensor(column as number[], [batch], 'int32');
    }), 1) as Tensor2D);
  }
  const values = new Int32Array(batch * SEQUENCE_FIELDS);
  columns.forEach((column, field) => {
    for (let b = 0; b < batch; b++) {
      values[b * SEQUENCE_FIELDS + field] = typeof column === 'number' ? column : (column as readonly number[])[b];
    }
  });
  return tensor2d(values, [batch, SEQUENCE_FIELDS], 'int32');
}

/** 0, 1, …, batch − 1: each sequence in its own batch of k and v. */
export function ownBatches(batch: number): number[] {
  return Array.from({length: batch}, (_, b) => b);
}

