import {biasGradientShape} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {DeviceLimits} from './capabilities.js';
import {MASK_GROUP, WORD_KEYS} from './mask_bits.js';
import {HALF_ROWS, halfShape} from './matrix_plan.js';
import {ROW_THREADS, sizesOf} from './plan.js';
import type {Plan} from './plan.js';

/**
 * to_half, the first time, at most; with fewer it takes 10 µs and less (H100). Each leaves six words (LOOKS) in
 * `largest`, which has eight more.
 */
export const TURNING_WORKGROUPS = 2048;
/** The second time, at most: most of the time there is nothing to do, once each has gone through all those words. */
const AGAIN_WORKGROUPS = 512;
export const LARGEST_WORDS = 8 + 6 * TURNING_WORKGROUPS;
/** forward the second time, at most: they go through all tiles, and there is hardly ever one to make again. */
const REDOING_WORKGROUPS = 1024;

/** What a dispatch covers, in numbers of batches, query heads, queries and keys. */
export interface Extent {
  readonly batches: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
}

/** Batches and heads that backward_dbias makes results for: 1 where it sums over them (and where there is 1). */
export function biasGroups(problem: Problem, {batches, heads}: Extent): {batches: number, heads: number} {
  const [b, h] = biasGradientShape(problem);
  return {batches: b === 1 ? 1 : batches, heads: h === 1 ? 1 : heads};
}

/** Workgroups of a dispatch over a window, for one part of the keys where they are split. */
export function workgroupCount(plan: Plan, problem: Problem, window: Extent, headsPerKey: number): number {
  const {blockQueries, blockKeys, headVec4, valueVec4} = sizesOf(plan);
  const {queries, keys, heads, batches} = window;
  if (plan.kind === 'decode') {
    return Math.ceil(headsPerKey * queries / blockQueries) * (heads / headsPerKey) * batches;
  }
  switch (plan.kernel) {
    case 'to_half': {
      const names = ['q', 'k', 'v', ...plan.hasDOutput ? ['dOutput'] as const : []] as const;
      const all = names.reduce((sum, name) => {
        const [of, halfHeads, rows] = halfShape(problem, plan.matrix!, name, plan.splitOperands);
        return sum + of * halfHeads * rows / HALF_ROWS;
      }, 0);
      return Math.min(all, plan.again ? AGAIN_WORKGROUPS : TURNING_WORKGROUPS);
    }
    case 'cache_append':
      return Math.ceil(Math.max(headVec4, valueVec4) * queries * heads * batches / ROW_THREADS);
    case 'row_statistics':
      return Math.ceil(queries / ROW_THREADS) * heads * batches;
    case 'merge_splits':
      return Math.ceil(queries * heads * batches / plan.rows);
    case 'pack_mask':
      return Math.ceil(queries / MASK_GROUP) * Math.ceil(keys / WORD_KEYS) * heads * batches;
    case 'backward_dkv':
      return Math.ceil(keys / blockKeys) * (heads / headsPerKey) * batches;
    case 'backward_dbias': {
      const groups = biasGroups(problem, window);
      const queryTiles = plan.overQueries ? 1 : Math.ceil(queries / blockQueries);
      const keyTiles = plan.overKeys ? 1 : Math.ceil(keys / blockKeys);
      return queryTiles * keyTiles * groups.heads * groups.batches;
    }
    default: {
      const all = Math.ceil(queries / blockQueries) * heads * batches;
      return plan.kernel === 'forward' && plan.again ? Math.min(all, REDOING_WORKGROUPS) : all;
    }
  }
}

/** The workgroups laid out in two dimensions within the device's limit, with as few idle ones as possible. */
export function grid(workgroups: number, limits: DeviceLimits): [number, number] {
  const y = Math.ceil(workgroups / limits.maxComputeWorkgroupsPerDimension);
  if (y > limits.maxComputeWorkgroupsPerDimension) {
    throw new Error(
        `flashAttention: ${workgroups} workgroups exceed the WebGPU limit maxComputeWorkgroupsPerDimension ` +
        `(${limits.maxComputeWorkgroupsPerDimension} each way); split the batch`);
  }
  return [Math.ceil(workgroups / y), y];
}
