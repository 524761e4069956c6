import type {Problem} from '../../op/problem.js';
import {SEQUENCE_FIELDS} from '../../op/sequences.js';

import type {Capabilities, DeviceLimits} from './capabilities.js';
import {choosePlan, FEW_QUERIES, isMatrixKind} from './choose.js';
import type {PlanKind} from './choose.js';
import {decodeBlockings, decodeMemory, decodeSizes} from './decode_plan.js';
import {isTiled} from './kernel_names.js';
import type {KernelName} from './kernel_names.js';
import {MASK_GROUP, WORD_KEYS} from './mask_bits.js';
import {deriveMatrix, isWrittenOut, matrixBlocking, matrixMemory, watchesItself} from './matrix_plan.js';
import type {MatrixBlocking} from './matrix_plan.js';
import {waitsForLongest} from './matrix_tiles.js';
import type {Work} from './matrix_tiles.js';

/** Parts of a kernel that are compiled in or out. */
export interface Features {
  readonly windowLeft: boolean;
  readonly windowRight: boolean;
  readonly mask: boolean;
  readonly bias: boolean;
  /** The bias is read four keys at a time. */
  readonly biasVec4: boolean;
  readonly alibi: boolean;
  readonly softcap: boolean;
  readonly dropout: boolean;
  /** forward: rows begin with their sink; the keys are cut into parts. */
  readonly sinks: boolean;
  readonly split: boolean;
  /** Sequences have lengths of their own; they lie end to end; k and v are a cache; the cache has pages. */
  readonly sequences: boolean;
  readonly endToEnd: boolean;
  readonly cache: boolean;
  readonly paged: boolean;
  /** row_statistics: LSE has a gradient too. */
  readonly hasLseGradient: boolean;
  /** backward_dkv: which of its two results are wanted. */
  readonly wantKeys: boolean;
  readonly wantValues: boolean;
  /** backward_dkv: both results lie in one buffer, or only one of them is wanted. */
  readonly sharedResult: boolean;
  /** Runs only where a matrix plan cannot: where something that the call reads is not finite. */
  readonly routed: boolean;
  /** forward: without matrices, since its LSE is for the gradient of a bias, which is made without. */
  readonly plain: boolean;
  /** to_half: the backward pass. */
  readonly hasDOutput: boolean;
  /**
   * The second time: to_half for tensors that f16 does not hold as they are, forward of the kind `matrix` for tiles
   * that it could not make.
   */
  readonly again: boolean;
  /** forward of the kind `matrix`: makes again by itself what it could not (matrix_plan). */
  readonly watchesItself: boolean;
  /** to_half and the kind `matrix_split`: each operand is the sum of two f16. (`split` is about keys.) */
  readonly splitOperands: boolean;
  /** backward_dbias: the gradient is one number for all queries (keys). */
  readonly overQueries: boolean;
  readonly overKeys: boolean;
}

/** How a workgroup is blocked (kernels/wgsl/tiles.wgsl, decode.wgsl). */
export interface Blocking {
  readonly threadsX: number;
  readonly threadsY: number;
  /** Queries of one thread. */
  readonly rows: number;
  /** vec4s of D (of Dv, for dO·Vᵀ) that are in workgroup memory at a time while scores are made. */
  readonly chunk: number;
  /** Rows of the right operand that are in workgroup memory at a time while results are made. */
  readonly rowChunk: number;
  /** decode: keys that a row of threads reads at a time, 4 or 8, and whether their values along with them; else 0. */
  readonly keysAtOnce: number;
  readonly earlyValues: boolean;
  /** Loops are written out (unroll.ts): for GPUs; LLVM on a CPU would compile for minutes. */
  readonly unrolled: boolean;
}

/**
 * All that distinguishes one pipeline from another: the shader's header, the pipeline key and the dispatch derive
 * from it. Numbers that change from call to call (lengths, heads, strides) are not in it.
 */
export interface Plan extends Blocking, Features {
  readonly kernel: KernelName;
  readonly kind: PlanKind;
  readonly headSize: number;
  readonly valueSize: number;
  /** Kinds `matrix` and `matrix_split`, and to_half: the subgroup matrices, and how a workgroup is blocked for them. */
  readonly matrix?: MatrixBlocking;
  /** Threads hand each other values by subgroup operations. */
  readonly subgroups: boolean;
  /** Storage buffers are read as vec4f; otherwise one float at a time. */
  readonly vectorised: boolean;
  /**
   * Tiles among which the longest come first, of several heads if it takes them (kernels/wgsl/sequence.wgsl); 0: head
   * after head.
   */
  readonly wave: number;
  /** Of those, so many go from the longest to the shortest and the next so many back again; 0: all one way. */
  readonly round: number;
  /** Room for what heads and sequences have of their own (kernels/wgsl/table.wgsl), a power of two; 0 without. */
  readonly tableVec4: number;
}

/** Sizes that every plan has. */
export interface Sizes {
  readonly threads: number;
  readonly blockQueries: number;
  readonly blockKeys: number;
  readonly headVec4: number;
  readonly valueVec4: number;
}

/** Sizes that follow from a plan for tiles, in vec4s where not said otherwise. */
export interface Derived extends Sizes {
  /** vec4 columns of results that one thread owns. */
  readonly columns: number;
  /** backward_dkv: groups of four keys that one thread owns. */
  readonly keyGroups: number;
  readonly leftStride: number;
  readonly weightsStride: number;
  readonly turnedStride: number;
  readonly rightWidth: number;
  readonly leftLength: number;
  readonly rightLength: number;
  /** Loads of one thread for a step of the left operand, of the turned right one (in blocks), of the right one. */
  readonly leftTrips: number;
  readonly turnedTrips: number;
  readonly rightTrips: number;
  /** Whether those loads come out even, so that none needs a test. */
  readonly leftExact: boolean;
  readonly turnedExact: boolean;
  readonly rightExact: boolean;
}

/** Of kernels without tiles. */
export const ROW_THREADS = 64;
const HALF_THREADS = 256;
const MERGE_THREADS = 128;
/** From so many rows on, merge_splits takes rows side by side (merge_rows.wgsl): they keep a GPU busy by themselves. */
const MANY_ROWS = 4096;
/** One to four times what a large GPU has resident; no better with 2048 (H100, benchmarks/NOTES.md). */
const WAVE = 512;
/**
 * About as many as a large GPU has multiprocessors. For backward kernels of simt, which share a multiprocessor's
 * arithmetic; those over matrices wait for the longest tile, and forward takes parts of the keys (H100, NOTES.md).
 */
const ROUND = 128;

const vec4s = (size: number) => Math.ceil(size / 4);

export function derive(plan: Plan): Derived {
  const {threadsX, threadsY, rows, chunk, rowChunk} = plan;
  const threads = threadsX * threadsY;
  const blockQueries = threadsY * rows;
  const blockKeys = threadsX * 4;
  const headVec4 = vec4s(plan.headSize);
  const valueVec4 = vec4s(plan.valueSize);
  const columns = Math.ceil(Math.max(headVec4, valueVec4) / threadsX);
  // Odd strides: rows that are read together lie in different banks.
  const leftStride = chunk | 1;
  const weightsStride = threadsX + 1;
  const turnedStride = threadsX + 1;
  const rightWidth = threadsX * columns;
  const leftLoads = blockQueries * chunk;
  // turned_block takes two vec4s of the chunk at a time.
  const turnedBlocks = blockKeys / 4 * (chunk + chunk % 2);
  const rightLoads = rowChunk * rightWidth;
  return {
    threads, blockQueries, blockKeys, headVec4, valueVec4, columns, keyGroups: Math.floor(threadsX / threadsY),
    leftStride, weightsStride, turnedStride, rightWidth,
    leftLength: blockQueries * Math.max(leftStride, weightsStride),
    rightLength: Math.max(4 * chunk * turnedStride, rowChunk * rightWidth),
    leftTrips: Math.ceil(leftLoads / threads),
    turnedTrips: Math.ceil(turnedBlocks / threads),
    rightTrips: Math.ceil(rightLoads / threads),
    leftExact: leftLoads % threads === 0,
    turnedExact: chunk % 2 === 0 && turnedBlocks % threads === 0,
    rightExact: rightLoads % threads === 0,
  };
}

/** True for kernels over subgroup matrices. */
export function isMatrixPlan(plan: Plan): plan is Plan&{matrix: MatrixBlocking} {
  return isMatrixKind(plan.kind) && isTiled(plan.kernel);
}

/** All constants that a plan's shader has beside the plan itself. */
export function sizesOf(plan: Plan): Sizes {
  if (isMatrixPlan(plan)) {
    return deriveMatrix(plan);
  }
  if (plan.matrix) {
    return {...deriveMatrix({...plan, matrix: plan.matrix}), threads: plan.threadsX};
  }
  if (plan.kind === 'decode') {
    return decodeSizes(plan);
  }
  const sizes = derive(plan);
  return plan.kernel === 'merge_splits' ?
      {...sizes, mergeSlots: Math.floor(sizes.threads / sizes.valueVec4)} as Sizes :
      sizes;
}

/** Bytes of workgroup memory, term by term as WebGPU counts them (each variable rounded up to 16). */
export function workgroupMemory(plan: Plan): Array<{name: string, bytes: number}> {
  const lanes = plan.subgroups ? [{name: 'fewest_lanes', bytes: 16}, {name: 'common_lanes', bytes: 16}] : [];
  if (plan.kind === 'decode') {
    return [...decodeMemory(plan), ...lanes];
  }
  const {threads, leftLength, rightLength} = derive(plan);
  if (plan.kernel === 'merge_splits' && plan.rows === 1) {
    return [
      {name: 'maxima', bytes: 4 * threads}, {name: 'totals', bytes: 4 * threads}, {name: 'sums', bytes: 16 * threads},
    ];
  }
  if (plan.kernel === 'pack_mask') {
    return [{name: 'fours', bytes: WORD_KEYS * MASK_GROUP}, {name: 'found', bytes: 16}];
  }
  if (!isTiled(plan.kernel)) {
    return [];
  }
  if (isMatrixPlan(plan)) {
    return matrixMemory(plan);
  }
  return [
    {name: 'left', bytes: 16 * leftLength},
    {name: 'right', bytes: 16 * rightLength},
    {name: 'right_not_finite', bytes: 16},
    ...lanes,
  ];
}

export function workgroupBytes(plan: Plan): number {
  return workgroupMemory(plan).reduce((sum, {bytes}) => sum + bytes, 0);
}

/**
 * [threadsX, threadsY, rows] in order of preference. Measured on an H200 through Dawn, 2026-11-23, N = 4096, among 17
 * blockings (benchmarks/NOTES.md): 256 threads with 4 rows each keep few enough registers for full occupancy and are
 * within 7% of the best everywhere but forward at D = 128, where the 8 score columns of `threadsX` 8 leave more of the
 * work to the products with V (26.1 against 18.8 TFLOP/s). What follows the first is for devices with less.
 */
function blockings(kernel: KernelName, width: number, queries: number): Array<[number, number, number]> {
  switch (kernel) {
    case 'backward_dkv':
      return [[16, 16, 4], [16, 16, 2], [16, 8, 2]];
    case 'backward_dq':
    case 'backward_dbias':
      return [[16, 16, 4], [16, 16, 2], [16, 8, 4]];
    default:
      if (queries <= FEW_QUERIES) {
        return [[64, 1, 4]];
      }
      return width > 64 && width <= 128 ? [[8, 16, 4]] : [[16, 16, 4], [16, 8, 4]];
  }
}

/** Most vec4s of the head size in workgroup memory at a time: 8 unroll into more code than pays (NOTES.md). */
const LARGEST_CHUNK = 4;

/**
 * vec4s per step over heads of `widths` vec4s, at most `most`: the fewest padded vec4s in all, counting each step's
 * two barriers as one vec4 more.
 */
export function chunkOf(widths: readonly number[], most: number): number {
  const cost = (chunk: number) => widths.reduce((sum, width) => sum + Math.ceil(width / chunk) * (chunk + 1), 0);
  let best = 1;
  for (let chunk = 2; chunk <= Math.min(most, Math.max(...widths)); chunk++) {
    best = cost(chunk) <= cost(best) ? chunk : best;
  }
  return best;
}

function fits(plan: Plan, limits: DeviceLimits): boolean {
  const threads = plan.threadsX * plan.threadsY;
  return threads <= limits.maxComputeInvocationsPerWorkgroup && threads <= limits.maxComputeWorkgroupSizeX &&
      workgroupBytes(plan) <= limits.maxComputeWorkgroupStorageSize;
}

/** Whether rows of a bias are fours of keys, wherever a window begins. */
const hasWholeFours = ({keyLength, biasShape}: Problem): boolean =>
    biasShape !== undefined && biasShape[3] === keyLength && keyLength % 4 === 0;

/** Features that follow from the problem alone; those that make no difference to a kernel are off in its plan. */
function featuresOf(kernel: KernelName, problem: Problem): Features {
  const tiled = isTiled(kernel);
  const {layout, windowLeft, windowRight, maskShape, biasShape, pageSize} = problem;
  const readsKeys = tiled || kernel === 'cache_append' || kernel === 'to_half';
  const endToEnd = layout === 'thd';
  return {
    windowLeft: tiled && windowLeft >= 0,
    windowRight: tiled && windowRight >= 0,
    mask: tiled && maskShape !== undefined,
    bias: tiled && biasShape !== undefined,
    biasVec4: tiled && hasWholeFours(problem),
    alibi: tiled && problem.alibi !== 'none',
    softcap: tiled && problem.softcap > 0,
    dropout: tiled && problem.dropoutP > 0,
    sinks: kernel === 'forward' && problem.hasSinks,
    sequences: problem.hasSequences && (readsKeys || endToEnd),
    endToEnd,
    cache: readsKeys && problem.cache === true,
    paged: readsKeys && pageSize > 0,
    split: false, hasLseGradient: false, wantKeys: false, wantValues: false, sharedResult: false,
    routed: false, plain: false, hasDOutput: false, again: false, watchesItself: false, splitOperands: false,
    overQueries: false, overKeys: false,
  };
}

/** How many words of a kernel's `table` a batch has, and how many all batches share. */
export function tableParts(kernel: KernelName, problem: Problem): {slopes: number, sinks: number, perBatch: number} {
  const {alibi, sinks, sequences} = featuresOf(kernel, problem);
  const heads = problem.queryHeads;
  return {
    slopes: alibi && problem.alibi === 'head' ? heads : 0,
    sinks: sinks ? heads : 0,
    perBatch: (alibi && problem.alibi === 'batch' ? heads : 0) + (sequences ? SEQUENCE_FIELDS : 0),
  };
}

export function tableWords(kernel: KernelName, problem: Problem, batches: number): number {
  const {slopes, sinks, perBatch} = tableParts(kernel, problem);
  return slopes + sinks + batches * perBatch;
}

/**
 * Makes the plan for a kernel: the preferred blocking that fits the device, with the largest steps that fit.
 * Pure; what it can choose is in the table test.
 * @param batches of the largest window, for the room in the table.
 * @param kind that the device can run; see choose.ts.
 * @throws when the device offers less than WebGPU guarantees (no plan fits).
 */
export function makePlan(
    kernel: KernelName, problem: Problem, capabilities: Capabilities, features: Partial<Features> = {},
    batches = problem.batch, kind = choosePlan(kernel, problem, capabilities)): Plan {
  const {limits} = capabilities;
  const {headSize, valueSize, windowLeft, windowRight} = problem;
  const words = tableWords(kernel, problem, batches);
  const isUneven = isTiled(kernel) && windowLeft < 0 && windowRight >= 0;
  const work = workOf(kernel, problem, isUneven);
  const common = {
    kernel, kind, headSize, valueSize,
    subgroups: kind === 'subgroup' || kind === 'decode' && capabilities.subgroups !== undefined,
    vectorised: headSize % 4 === 0 && valueSize % 4 === 0,
    wave: isUneven ? WAVE : 0,
    round: isUneven && kind === 'simt' && kernel !== 'forward' && waitsForLongest(work) ? ROUND : 0,
    tableVec4: words === 0 ? 0 : 2 ** Math.max(4, Math.ceil(Math.log2(words / 4))),
    ...featuresOf(kernel, problem),
    ...features,
    ...kind === 'matrix_split' && {splitOperands: true},
  };
  const plain = {keysAtOnce: 0, earlyValues: false, unrolled: false};
  if (!isTiled(kernel)) {
    // The blocking only carries the number of threads.
    const threads: {readonly [name in KernelName]?: number} =
        {to_half: HALF_THREADS, merge_splits: MERGE_THREADS, pack_mask: MASK_GROUP};
    const matrix = kernel === 'to_half' ? matrixBlocking(common, capabilities) : undefined;
    return {
      ...common, matrix, threadsX: threads[kernel] ?? ROW_THREADS, threadsY: 1, rows: rowsAtOnce(kernel, problem),
      chunk: 1, rowChunk: 1, ...plain, unrolled: kernel === 'to_half' && !capabilities.isFallback,
    };
  }
  if (isMatrixKind(kind)) {
    const matrix = matrixBlocking(common, capabilities, work);
    if (!matrix) {
      throw noPlan(kernel, problem, limits);
    }
    const itself = kernel === 'forward' && kind === 'matrix' && !common.again &&
        watchesItself(problem, matrix, work, limits);
    return {
      // But for what is made again, operands have been unpacked from a cache's pages.
      ...common, watchesItself: itself, paged: common.paged && (common.again || itself), matrix,
      threadsX: matrix.lanes, threadsY: matrix.subgroups, rows: 1, chunk: 1, rowChunk: 1, ...plain,
      unrolled: isWrittenOut({...common, matrix}, capabilities),
    };
  }
  if (kind === 'decode') {
    const fitting = decodeBlockings(problem, capabilities).map((blocking): Plan => ({...common, ...blocking}))
        .find(plan => fits(plan, limits));
    if (fitting) {
      return fitting;
    }
    throw noPlan(kernel, problem, limits);
  }
  const widths = kernel === 'forward' ? [vec4s(headSize)] : [vec4s(headSize), vec4s(valueSize)];
  const width = Math.max(headSize, valueSize);
  for (const [threadsX, threadsY, rows] of blockings(kernel, width, problem.queryLength)) {
    for (let most = LARGEST_CHUNK; most >= 1; most /= 2) {
      const chunk = chunkOf(widths, most);
      const stepless: Plan = {...common, threadsX, threadsY, rows, chunk, rowChunk: 4, ...plain};
      // As many rows a step as fit into what the scores need anyway, or into 4 KB.
      const {rightLength, rightWidth} = derive(stepless);
      const rowChunk = [32, 16, 8].find(n => n * rightWidth <= Math.max(rightLength, 256)) ?? 4;
      const plan: Plan = {...stepless, rowChunk};
      if (fits(plan, limits)) {
        return plan;
      }
    }
  }
  throw noPlan(kernel, problem, limits);
}

function workOf(kernel: KernelName, problem: Problem, isUneven: boolean): Work {
  const {batch, queryHeads, keyHeads, queryLength, keyLength} = problem;
  const rows = kernel === 'backward_dkv' ? keyHeads * keyLength : queryHeads * queryLength;
  return {rows: batch * rows, isUneven};
}

/** Rows that a workgroup of a kernel without tiles takes side by side. */
function rowsAtOnce(kernel: KernelName, {batch, queryHeads, queryLength, valueSize}: Problem): number {
  const isMany = kernel === 'merge_splits' && batch * queryHeads * queryLength >= MANY_ROWS;
  return isMany ? Math.max(1, Math.floor(MERGE_THREADS / vec4s(valueSize))) : 1;
}

function noPlan(kernel: KernelName, {headSize, valueSize}: Problem, limits: DeviceLimits): Error {
  return new Error(
      `flashAttention: no ${kernel} kernel for head sizes ${headSize} and ${valueSize} fits a WebGPU device with ` +
      `maxComputeWorkgroupStorageSize ${limits.maxComputeWorkgroupStorageSize} and ` +
      `maxComputeInvocationsPerWorkgroup ${limits.maxComputeInvocationsPerWorkgroup}; use another backend`);
}

/** One string a pipeline. */
export function planKey(plan: Plan): string {
  return JSON.stringify(plan);
}
