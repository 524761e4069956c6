import type {Problem} from '../../op/problem.js';

import type {Capabilities} from './capabilities.js';
import type {Blocking, Plan, Sizes} from './plan.js';

/** Sizes of kernels/wgsl/decode.wgsl that follow from a plan, in vec4s where not said otherwise. */
export interface DecodeSizes extends Sizes {
  /** Threads of a row, as a power of 2. */
  readonly laneBits: number;
  /** vec4s of a row of K (V) that a thread has, and whether rows of threads come out even. */
  readonly headVecs: number;
  readonly headExact: boolean;
  readonly valueVecs: number;
  /** Products of one thread with its row's keys. */
  readonly scores: number;
  readonly queriesLength: number;
  readonly queriesTrips: number;
  readonly queriesExact: boolean;
  /** vec4s that every thread puts into workgroup memory at a time: sums of products, and columns of the output. */
  readonly sharedItems: number;
  readonly sharedValues: number;
  readonly sharedLength: number;
}

/** Bytes of workgroup memory for what threads tell each other. */
const SHARED_BYTES = 8192;

const vec4s = (size: number) => Math.ceil(size / 4);
const powerOfTwo = (atLeast: number) => 2 ** Math.ceil(Math.log2(atLeast));

export function decodeSizes(plan: Plan): DecodeSizes {
  const {threadsX, threadsY, rows, keysAtOnce} = plan;
  const threads = threadsX * threadsY;
  const headVec4 = vec4s(plan.headSize);
  const valueVec4 = vec4s(plan.valueSize);
  const headVecs = Math.ceil(headVec4 / threadsX);
  const valueVecs = Math.ceil(valueVec4 / threadsX);
  const scores = rows * keysAtOnce / 4;
  const queriesLength = rows * headVecs * threadsX;
  // Both are powers of two, so that one divides the other.
  const sharedItems = Math.min(scores, Math.max(1, 2 ** Math.floor(Math.log2(SHARED_BYTES / 16 / threads))));
  const sharedValues = Math.max(...[1, 2, 4, 8].filter(n => n <= sharedItems && valueVecs % n === 0));
  return {
    threads, blockQueries: rows, blockKeys: threadsY * keysAtOnce, headVec4, valueVec4, headVecs, valueVecs, scores,
    laneBits: Math.log2(threadsX), headExact: headVec4 % threadsX === 0,
    queriesLength, queriesTrips: Math.ceil(queriesLength / threads), queriesExact: queriesLength % threads === 0,
    sharedItems, sharedValues, sharedLength: sharedItems * threads,
  };
}

export function decodeMemory(plan: Plan): Array<{name: string, bytes: number}> {
  const {queriesLength, sharedLength} = decodeSizes(plan);
  const groups = 16 * Math.ceil(4 * plan.rows * plan.threadsY / 16);
  return [
    {name: 'queries', bytes: 16 * queriesLength},
    {name: 'shared_sums', bytes: 16 * sharedLength},
    {name: 'group_max', bytes: groups},
    {name: 'group_sum', bytes: groups},
  ];
}

/** What the counts in benchmarks/NOTES.md say, not yet measured. */
const THREADS = 128;
/** Registers, in vec4s a thread: for output of all rows; for K and V on their way. */
const MOST_ACCUMULATORS = 16;
const MOST_ROWS = 8;
const MOST_IN_FLIGHT = 16;

/**
 * Threads that read a row of K or V together. By shuffles as many as there are vec4s, up to what surely is one
 * subgroup: each then has little to keep in registers. Through workgroup memory every one of them costs each of the
 * others a load, so a quarter.
 */
function lanesFor(width: number, {subgroups}: Capabilities): number {
  const few = Math.min(32, Math.max(4, powerOfTwo(width / 4)));
  if (!subgroups) {
    return few;
  }
  return Math.max(few, Math.min(32, powerOfTwo(width), subgroups.min));
}

/** Blockings in order of preference; those after the first are for devices with less workgroup memory. */
export function decodeBlockings(problem: Problem, capabilities: Capabilities): Blocking[] {
  const {headSize, valueSize, queryLength, queryHeads, keyHeads} = problem;
  const threadsX = lanesFor(Math.max(vec4s(headSize), vec4s(valueSize)), capabilities);
  const headVecs = Math.ceil(vec4s(headSize) / threadsX);
  const valueVecs = Math.ceil(vec4s(valueSize) / threadsX);
  const wanted = powerOfTwo(Math.max(1, queryLength * queryHeads / keyHeads));
  const most = Math.max(1, Math.min(wanted, MOST_ROWS, 2 ** Math.floor(Math.log2(MOST_ACCUMULATORS / valueVecs))));
  const blockings: Blocking[] = [];
  for (let rows = most; rows >= 1; rows /= 2) {
    const keysAtOnce = rows <= 2 && 8 * (headVecs + valueVecs) <= MOST_IN_FLIGHT ? 8 : 4;
    const earlyValues = keysAtOnce * (headVecs + valueVecs) <= MOST_IN_FLIGHT;
    blockings.push({
      threadsX, threadsY: THREADS / threadsX, rows, chunk: 1, rowChunk: 1, keysAtOnce, earlyValues,
      unrolled: !capabilities.isFallback,
    });
  }
  return blockings;
}
