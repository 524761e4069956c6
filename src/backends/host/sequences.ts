import type {Problem} from '../../op/problem.js';
import {SEQUENCE_FIELDS} from '../../op/sequences.js';

/** Where one sequence lies, brought inside the tensors. Rows count from its batch's first. */
export interface Sequence {
  readonly queryFirst: number;
  readonly queries: number;
  readonly keyFirst: number;
  readonly keys: number;
  /** Batch of k and v, or with pages the sequence itself. */
  readonly keyBatch: number;
  /** Rows of q to be written: those of the sequence, and in padded tensors the padding too. */
  readonly queryRows: number;
}

const bounded = (value: number, most: number): number => Math.max(0, Math.min(value, most));

/** @param values the tensor `sequences`, where there is one. */
export function sequencesOf(problem: Problem, values: Int32Array|undefined): Sequence[] {
  const {batch, queryLength, keyLength, layout, keyBatches, pageSize} = problem;
  const isPadded = layout !== 'thd';
  const queryRows = isPadded ? queryLength : problem.queryRows;
  const keyRows = isPadded ? keyLength : problem.keyRows;
  return Array.from({length: batch}, (_, b) => {
    if (!values) {
      return {queryFirst: 0, queries: queryLength, keyFirst: 0, keys: keyLength, keyBatch: b, queryRows: queryLength};
    }
    const [first, count, firstKey, keyCount, keyBatch] =
        values.subarray(b * SEQUENCE_FIELDS, (b + 1) * SEQUENCE_FIELDS);
    // In padded batches each sequence has all of its batch's rows: the op gives 0.
    const queryFirst = isPadded ? 0 : bounded(first, queryRows);
    const queries = bounded(count, Math.min(queryLength, queryRows - queryFirst));
    const keyFirst = bounded(firstKey, keyRows);
    return {
      queryFirst, queries, keyFirst,
      keys: bounded(keyCount, Math.min(keyLength, keyRows - keyFirst)),
      keyBatch: pageSize > 0 ? b : bounded(keyBatch, keyBatches - 1),
      queryRows: isPadded ? queryLength : queries,
    };
  });
}
