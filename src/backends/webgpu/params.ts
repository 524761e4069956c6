import {dropoutThreshold, philoxKey} from '../../op/philox.js';
import {diagonalOffset} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {DeviceLimits} from './capabilities.js';
import type {KernelName} from './kernel_names.js';
import type {Split} from './splits.js';
import type {TablePlaces} from './table.js';
import {headsPerKey, operand, rangeOf, resumes} from './windows.js';
import type {OperandName, Window} from './windows.js';
import {biasGroups} from './workgroups.js';

/** The members of type View in `Params` (kernels/wgsl/params.wgsl), in order. */
const VIEWS: readonly OperandName[] =
    ['q', 'k', 'v', 'output', 'rows', 'statistics', 'mask', 'maskTensor', 'bias', 'biasGradient'];
const SCALARS = 41;
const WORDS = Math.ceil((VIEWS.length * 4 + SCALARS) / 4) * 4;

/** Elements from one part of split results to the next. */
export interface SplitStrides {
  readonly output: number;
  readonly rows: number;
}

/** Where `seed_low` lies in `Params`, in words. */
const SEED = VIEWS.length * 4 + 28;

/** Writes the seed of a call into a block that {@link packParams} made. */
export function writeSeed(params: ArrayBuffer, seed: number): void {
  new Uint32Array(params).set(philoxKey(seed), SEED);
}

/** The uniform block of a dispatch over a window, laid out as `Params`, with a seed of 0. */
export function packParams(
    kernel: KernelName, problem: Problem, window: Window, limits: DeviceLimits, places: TablePlaces,
    split: Split, splitStrides: SplitStrides): ArrayBuffer {
  const words = new Uint32Array(WORDS);
  const floats = new Float32Array(words.buffer);
  let at = 0;
  // Negative numbers become two's complement: i32 in the shader, or offsets that wrap around.
  const put = (...values: number[]) => {
    words.set(values, at);
    at += values.length;
  };
  const putFloats = (...values: number[]) => {
    floats.set(values, at);
    at += values.length;
  };
  for (const name of VIEWS) {
    const bound = operand(problem, name);
    put(rangeOf(bound, problem, window, limits).base, bound.strides.batch, bound.strides.row, bound.strides.head);
  }
  const {queryLength, keyLength, layout} = problem;
  const isEndToEnd = layout === 'thd';
  const groups = problem.biasShape ? biasGroups(problem, window) : {batches: 1, heads: 1};
  const furthest = queryLength + keyLength; // from the diagonal: windows beyond it hide nothing
  put(
      problem.maskShape ? problem.maskShape[3] : 0, operand(problem, 'bias').keyStride,
      operand(problem, 'biasGradient').keyStride, groups.batches, groups.heads,
      window.batchFirst, window.headFirst, window.queryFirst, window.keyFirst,
      window.batches, window.heads, window.queries, window.keys, queryLength, keyLength,
      isEndToEnd ? problem.queryRows : queryLength, isEndToEnd ? problem.keyRows : keyLength,
      problem.queryHeads / problem.keyHeads, headsPerKey(problem, window),
      diagonalOffset(problem, queryLength, keyLength), problem.causalAlignment === 'bottom-right' ? 1 : 0,
      Math.min(problem.windowLeft, furthest), Math.min(problem.windowRight, furthest),
      resumes(kernel, problem, window) ? 1 : 0);
  putFloats(problem.softmaxScale, problem.softcap, 1 / (1 - problem.dropoutP));
  put(
      dropoutThreshold(problem.dropoutP), 0, 0, places.slopes, places.slopesBatch, places.sinks,
      places.sequences, problem.keyBatches, problem.pageSize,
      problem.pageSize > 0 ? keyLength / problem.pageSize : 0,
      split.splits, split.keys, splitStrides.output, splitStrides.rows);
  return words.buffer;
}
