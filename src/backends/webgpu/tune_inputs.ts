import {util} from '@tensorflow/tfjs-core';
import type {TensorInfo, TypedArray} from '@tensorflow/tfjs-core';

import type {GradInputName} from '../../op/kernels.js';
import type {Problem} from '../../op/problem.js';

const PERIOD = 2 ** 16 + 1;

/** Numbers like those of a model, near a standard normal distribution: a stretch of them over and over. */
function numbers(size: number): Float32Array {
  const values = new Float32Array(size);
  let state = 1;
  const uniform = () => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  for (let i = 0; i < Math.min(PERIOD, size); i++) {
    values[i] = 2 * (uniform() + uniform() + uniform());
  }
  for (let filled = PERIOD; filled < size; filled += PERIOD) {
    values.copyWithin(filled, 0, Math.min(PERIOD, size - filled));
  }
  return values;
}

/** Where each sequence lies, as `op/sequences` has it: all of the tensors, or between the offsets. */
function sequences({batch, queryLength, keyLength, queryOffsets, keyOffsets, cache, keyBatches}: Problem): Int32Array {
  return Int32Array.from(Array.from({length: batch}, (_, b) => [
    queryOffsets?.[b] ?? 0, queryOffsets ? queryOffsets[b + 1] - queryOffsets[b] : queryLength,
    keyOffsets?.[b] ?? 0, keyOffsets ? keyOffsets[b + 1] - keyOffsets[b] : keyLength,
    cache ? b % keyBatches : b,
  ]).flat());
}

/** Contents for an input of a kernel that nobody but a clock looks at. */
export function tuneInput(name: GradInputName, {shape}: TensorInfo, problem: Problem): TypedArray {
  const size = util.sizeFromShape(shape);
  switch (name) {
    case 'mask': // every eighth key is hidden
      return Uint8Array.from({length: size}, (_, i) => i % 8 === 7 ? 0 : 1);
    case 'alibiSlopes':
      return new Float32Array(size).fill(0.01);
    case 'sequences':
      return sequences(problem);
    case 'blockTable':
      return Int32Array.from({length: size}, (_, i) => i % problem.keyBatches);
    default:
      return numbers(size);
  }
}
