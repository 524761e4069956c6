import {diagonalOffset} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {FEW_QUERIES} from './choose.js';
import type {PlanKind} from './choose.js';
import {isMatrixPlan, sizesOf} from './plan.js';
import type {Plan} from './plan.js';
import {workgroupCount} from './workgroups.js';
import type {Extent} from './workgroups.js';

/** Threads that keep a large GPU busy (an H200 has 132 multiprocessors). */
const BUSY_THREADS = 2 ** 16;
/** Those it runs at once over subgroup matrices: eight subgroups fill a multiprocessor's workgroup memory. */
const MATRIX_THREADS = 2 ** 15;
/** Workgroups that take all of a large GPU: with simt and subgroup, whose registers leave room for two at once. */
const TILE_PLACES = 256;
/** From so many workgroups on a call over subgroup matrices gains less by parts than merging costs (NOTES.md). */
const MATRIX_PLACES = 128;
/** The most parts that merging pays for, and the most there are if a caller asks for more. */
const PAYING_SPLITS: {readonly [kind in PlanKind]: number} =
    {simt: 64, subgroup: 64, matrix: 64, matrix_split: 64, decode: 256};
const MOST_SPLITS = 256;
/** Keys of the largest tile that any plan has, and one that is not for few queries. */
const LARGEST_TILE = 256;
const STAND_IN_TILE = 64;
/** Keys that a part has at least: less is not worth a workgroup's start and its share of the merging. */
const LEAST_KEYS = 512;

/** How the keys of a forward pass are split: into how many parts, of how many keys each (a multiple of the tile). */
export interface Split {
  readonly splits: number;
  readonly keys: number;
}

/** Into how many parts the keys must go for `workgroups` of one part each to fill a large GPU. */
function fillingParts(plan: Plan, problem: Problem, workgroups: number): number {
  const {threads, blockQueries} = sizesOf(plan);
  if (isMatrixPlan(plan)) {
    return workgroups >= MATRIX_PLACES ? 1 : Math.floor(MATRIX_THREADS / threads / workgroups);
  }
  if (plan.kind === 'decode' || problem.queryLength <= FEW_QUERIES) {
    return Math.floor(BUSY_THREADS / threads / workgroups);
  }
  return Math.round(TILE_PLACES * longestShare(problem, blockQueries) / workgroups);
}

/**
 * Keys that the longest tile of queries sees over those that tiles see on average: nearly 2 with causal masking. A GPU
 * that has room for all tiles waits for the longest, so that parts pay although it is full.
 */
export function longestShare(problem: Problem, blockQueries: number): number {
  const {queryLength, keyLength, windowLeft, windowRight} = problem;
  if (windowLeft >= 0 || windowRight < 0) {
    return 1;
  }
  const tiles = Math.ceil(queryLength / blockQueries);
  const seen = Array.from({length: tiles}, (_, tile) => {
    const last = Math.min((tile + 1) * blockQueries, queryLength) - 1;
    return Math.max(0, Math.min(keyLength, last + diagonalOffset(problem, queryLength, keyLength) + windowRight + 1));
  });
  const all = seen.reduce((sum, keys) => sum + keys, 0);
  return all === 0 ? 1 : Math.max(...seen) * tiles / all;
}

/**
 * Splits the keys over several workgroups where there are too few tiles of queries to fill a GPU (flash_attn's
 * split-KV), or as the caller says. Pure.
 */
export function makeSplit(plan: Plan, problem: Problem): Split {
  const {blockKeys: keysOfTile} = sizesOf(plan);
  // The kernel that stands in for one over matrices has tiles of its own; parts must be whole tiles of both.
  const blockKeys = !isMatrixPlan(plan) ? keysOfTile : problem.queryLength > FEW_QUERIES ? STAND_IN_TILE : LARGEST_TILE;
  const tiles = Math.max(1, Math.ceil(problem.keyLength / blockKeys));
  const whole: Extent =
      {batches: problem.batch, heads: problem.queryHeads, queries: problem.queryLength, keys: problem.keyLength};
  const workgroups = Math.max(1, workgroupCount(plan, problem, whole, problem.queryHeads / problem.keyHeads));
  const least = isMatrixPlan(plan) ? LEAST_KEYS / blockKeys : 2;
  const automatic =
      Math.min(PAYING_SPLITS[plan.kind], fillingParts(plan, problem, workgroups), Math.floor(tiles / least));
  const wanted = Math.max(1, Math.min(tiles, MOST_SPLITS, problem.splits ?? automatic));
  const tilesEach = Math.ceil(tiles / wanted);
  return {splits: Math.ceil(tiles / tilesEach), keys: tilesEach * blockKeys};
}
