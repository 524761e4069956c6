import type {Problem} from '../../op/problem.js';

import type {Capabilities, DeviceLimits, MatrixShape} from './capabilities.js';
import type {KernelName} from './plan.js';

/** How the forward pass goes about the products of operands that are split into two f16 (matrix_forward_split.wgsl). */
export interface RestBlocking {
  /** Subgroups that share a strip of queries: each makes some of its scores and sums some of its columns. */
  readonly stripSubgroups: number;
  /** So many keys are summed by the matrices, which truncate, before the lanes add what came of them. */
  readonly flushKeys: number;
}

/** How a workgroup is blocked for subgroup matrices (kernels/wgsl/matrix.wgsl). */
export interface MatrixBlocking extends MatrixShape {
  /** Lanes of a subgroup. */
  readonly lanes: number;
  /** Subgroups of a workgroup: each owns a strip of M rows of the result. */
  readonly subgroups: number;
  /** Rows of the tiles that all subgroups read. */
  readonly blockRows: number;
  /** Only where operands are split. */
  readonly rests?: RestBlocking;
}

/** The part of a plan that the sizes derive from. */
interface MatrixPlan {
  readonly kernel: KernelName;
  readonly headSize: number;
  readonly valueSize: number;
  readonly mask: boolean;
  readonly bias: boolean;
  /** forward: for tiles that it could not make the first time. */
  readonly again: boolean;
  /** Every operand is the sum of two f16: the kind `matrix_split`. */
  readonly splitOperands: boolean;
  readonly matrix: MatrixBlocking;
}

/**
 * Whether a forward pass of the kind `matrix` looks at each tile's weights (kernels/wgsl/matrix_watched.wgsl): where
 * its sample of the scores may be hidden, or has been too small.
 */
export const isWatched = (
    {kernel, mask, bias, splitOperands, again}: Omit<MatrixPlan, 'matrix'|'headSize'|'valueSize'>): boolean =>
    kernel === 'forward' && !splitOperands && (mask || bias || again);

/** The part of a plan for a problem that `isWatched` asks for, of a kernel that runs the first time. */
export const firstTime = (kernel: KernelName, {maskShape, biasShape}: Problem, splitOperands: boolean) =>
    ({kernel, splitOperands, mask: maskShape !== undefined, bias: biasShape !== undefined, again: false});

const roundUp = (n: number, multiple: number) => Math.ceil(n / multiple) * multiple;

/** Head sizes are padded to this: to whole subgroup matrices, and to the eight halves of a vec4u. */
const padding = ({N, K}: MatrixShape) => Math.max(8, N, K);

/** Constants of kernels/wgsl/half.wgsl and matrix*.wgsl that follow from a plan. */
export function deriveMatrix({kernel, headSize, valueSize, splitOperands, matrix}: MatrixPlan) {
  const {M, N, K, lanes, subgroups, blockRows, rests} = matrix;
  const threads = lanes * subgroups;
  const headPad = roundUp(headSize, padding(matrix));
  const valuePad = roundUp(valueSize, padding(matrix));
  const stripsAreKeys = kernel === 'backward_dkv';
  const stripSubgroups = rests?.stripSubgroups ?? 1;
  const strips = subgroups / stripSubgroups;
  const lanesPerRow = lanes * stripSubgroups / M;
  const operandParts = splitOperands ? 2 : 1;
  const headLoads = operandParts * blockRows * headPad / 8;
  const valueLoads = operandParts * blockRows * valuePad / 8;
  // 8 floats of padding keep rows of a stored matrix in different banks; a lane that takes a whole row of 16 floats
  // wants 4.
  const sumsStride = stripsAreKeys ? (M + 4) / 4 : (blockRows + 8) / 4;
  // Steps over the head size whose operands fit into a row of `sums` on their way into matrices.
  let stagedSteps = Math.min(headPad / K, Math.floor(sumsStride * 8 / K));
  while (headPad / K % stagedSteps > 0) {
    stagedSteps--;
  }
  const rowsOfSums = stripsAreKeys ? 2 * blockRows : kernel === 'backward_dq' ? 2 * M : M;
  return {
    threads, matrixM: M, matrixN: N, matrixK: K, lanes, subgroups, blockRows,
    blockQueries: stripsAreKeys ? blockRows : M * strips,
    blockKeys: stripsAreKeys ? M * strips : blockRows,
    headVec4: Math.ceil(headSize / 4), valueVec4: Math.ceil(valueSize / 4),
    operandParts, headVec8: operandParts * headPad / 8, valueVec8: operandParts * valuePad / 8,
    // In vec4s of halves; 8 more than the row, so that eight rows lie in different banks.
    headStride: (operandParts * headPad + 8) / 4, valueStride: (operandParts * valuePad + 8) / 4,
    headTrips: Math.ceil(headLoads / threads), valueTrips: Math.ceil(valueLoads / threads),
    headExact: headLoads % threads === 0, valueExact: valueLoads % threads === 0,
    headSteps: headPad / K, valueSteps: valuePad / K, headColumns: headPad / N, valueColumns: valuePad / N,
    stagedSteps, passes: headPad / K / stagedSteps,
    stagedTrips: Math.ceil(Math.max(M, N) * stagedSteps * K / 8 / lanes),
    sumsStride, sumsLength: strips * rowsOfSums * sumsStride, stripSubgroups,
    weightsStride: (operandParts * blockRows + 8) / 4, lanesPerRow, rowVec4: blockRows / 4 / lanesPerRow,
    columnVec4: N / 4 / lanesPerRow,
    queryTrips: Math.ceil(blockRows / lanes), queriesExact: blockRows % lanes === 0, blockTrips: M * N / 4 / lanes,
    ...rests && deriveRests(rests, {blockRows, headPad, valuePad, N, lanesPerRow}),
  };
}

interface RestSizes {
  readonly blockRows: number;
  readonly headPad: number;
  readonly valuePad: number;
  readonly N: number;
  readonly lanesPerRow: number;
}

/** Constants of matrix_forward_split.wgsl alone. */
function deriveRests(
    {stripSubgroups, flushKeys}: RestBlocking, {blockRows, headPad, valuePad, N, lanesPerRow}: RestSizes) {
  const partColumns = valuePad / N / stripSubgroups;
  // As many columns of matrices as a row of `sums` holds, in whole rounds.
  let columnsAtOnce = Math.floor(blockRows / N / stripSubgroups);
  while (partColumns % columnsAtOnce > 0) {
    columnsAtOnce--;
  }
  return {
    flushTiles: Math.max(1, flushKeys / blockRows), columnsAtOnce, partColumns,
    // Of all subgroups of a strip.
    columnsStored: stripSubgroups * columnsAtOnce,
    // vec4s of eight halves from a row of an operand to what rounding took from it.
    headRest: headPad / 8, valueRest: valuePad / 8,
    outputVec4: valuePad / 4 / lanesPerRow,
  };
}

/** Bytes of workgroup memory, term by term. */
export function matrixMemory(plan: MatrixPlan): Array<{name: string, bytes: number}> {
  const {blockRows, headStride, valueStride, sumsLength, weightsStride, blockQueries} = deriveMatrix(plan);
  const hiddenTiles = [{name: 'seen_by_any', bytes: 16}, {name: 'tile_is_seen', bytes: 16}];
  return [
    {name: 'head_tile', bytes: 8 * blockRows * headStride},
    {name: 'value_tile', bytes: 8 * blockRows * valueStride},
    {name: 'sums', bytes: 16 * sumsLength},
    ...plan.kernel === 'backward_dkv' ? [] : [{name: 'weights', bytes: 8 * blockQueries * weightsStride}],
    ...plan.kernel === 'forward' && !isWatched(plan) ? [{name: 'too_large', bytes: 16}] : [],
    ...isWatched(plan) ? [{name: 'seen', bytes: 16}, {name: 'row_is_missing', bytes: 16}] : [],
    ...plan.mask ? hiddenTiles : [],
  ];
}

/**
 * The product of subgroup matrices that the kernels take: the largest that the device lists, if it has one whose rows
 * come out even with its lanes.
 */
export function matrixShape({matrix, subgroups}: Capabilities): MatrixShape|undefined {
  const lanes = subgroups?.max ?? 0;
  return matrix
      .filter(({M, N, K}) => lanes > 0 && lanes % M === 0 && M % 8 === 0 && N % (4 * lanes / M) === 0 &&
                  N <= 16 && K <= 16)
      .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K)[0];
}

/**
 * More subgroup matrices than this in a kernel with its loops written out, and NVIDIA's compiler (580.159) makes dK
 * wrong: 128 of them for D = 256 by 16×8×8, where loops are right; 96 are (H200, 2026-11-26).
 */
const MOST_MATRICES = 96;

/** Whether a kernel's loops are written out (unroll.ts): not on a CPU, where LLVM would compile them for minutes. */
export function isWrittenOut(plan: MatrixPlan, {isFallback}: Capabilities): boolean {
  const {headSteps, valueSteps, headColumns, valueColumns} = deriveMatrix(plan);
  const {stripSubgroups = 1} = plan.matrix.rests ?? {};
  const parts = plan.splitOperands ? 2 : 1;
  const held = {
    forward: parts * headSteps + valueColumns / stripSubgroups,
    backward_dq: headSteps + valueSteps + headColumns,
    backward_dkv: headSteps + valueSteps + headColumns + valueColumns,
  } as {readonly [name in KernelName]?: number};
  return !isFallback && (held[plan.kernel] ?? 0) <= MOST_MATRICES;
}

interface Shape {
  readonly subgroups: number;
  readonly blockRows: number;
  readonly rests?: RestBlocking;
}

/** In order of preference: what follows the first is for devices with little workgroup memory. */
const SHORT_TILES: readonly Shape[] = [4, 2, 1].map(subgroups => ({subgroups, blockRows: 16}));
const MANY_LONG_TILES: readonly Shape[] = [{subgroups: 8, blockRows: 32}];
const FEW_LONG_TILES: readonly Shape[] = [{subgroups: 2, blockRows: 32}];
const LONG_TILES: readonly Shape[] = [...[4, 2].map(subgroups => ({subgroups, blockRows: 32})), ...SHORT_TILES];

/** Backward kernels of larger heads gain nothing by short waits (H100, benchmarks/NOTES.md). */
const LARGEST_HEAD_AT_ONCE = 64;

/** Keys after which sums leave the matrices: 128 are 13% faster, and out of the error budget (H100, NOTES.md). */
const FLUSH_KEYS = 32;

/** In order of preference, measured on an H200 and an H100 (benchmarks/NOTES.md). */
function shapesOf(
    plan: Omit<MatrixPlan, 'matrix'>, shape: MatrixShape, lanes: number, longestDecides: boolean): Shape[] {
  const {kernel, headSize, valueSize, splitOperands} = plan;
  const width = Math.max(headSize, valueSize);
  if (kernel === 'forward' && !splitOperands) {
    const hasLongTiles = !isWatched(plan) && width > 64 && width <= 128;
    return !hasLongTiles ? [...SHORT_TILES] : longestDecides ? [...LONG_TILES] : [...MANY_LONG_TILES, ...SHORT_TILES];
  }
  if (!splitOperands) {
    const waits = longestDecides && width <= LARGEST_HEAD_AT_ONCE;
    return [...waits ? FEW_LONG_TILES : [], ...width <= 64 && !waits ? SHORT_TILES : LONG_TILES];
  }
  const whole = {stripSubgroups: 1, flushKeys: FLUSH_KEYS};
  // Queries, sums and results of a strip of large heads are too many registers for one subgroup. Two must come out even
  // with the columns of the result and, four of a row at a time, with those of a matrix.
  const {M, N} = shape;
  const isShared =
      width > 64 && N % (8 * lanes / M) === 0 && roundUp(valueSize, padding(shape)) / N % 2 === 0;
  return [
    ...isShared ? [6, 4].map(subgroups => ({subgroups, blockRows: 32, rests: {...whole, stripSubgroups: 2}})) : [],
    // Not of one subgroup, which gave wrong results on an H100 (driver 580.159): barriers mean nothing to it there.
    ...[4, 2].map(subgroups => ({subgroups, blockRows: 16, rests: whole})),
  ];
}

/**
 * The preferred blocking that fits the device; undefined where none does.
 * @param longestDecides all workgroups run at once on a large GPU, and some go through more tiles than others.
 */
export function matrixBlocking(
    plan: Omit<MatrixPlan, 'matrix'>, capabilities: Capabilities, longestDecides = false): MatrixBlocking|undefined {
  const shape = matrixShape(capabilities);
  const {limits} = capabilities;
  if (!shape) {
    return undefined;
  }
  const lanes = capabilities.subgroups!.max;
  for (const tile of shapesOf(plan, shape, lanes, longestDecides)) {
    const matrix = {...shape, lanes, ...tile};
    const bytes = matrixMemory({...plan, matrix}).reduce((sum, term) => sum + term.bytes, 0);
    if (lanes * tile.subgroups <= limits.maxComputeInvocationsPerWorkgroup && fitsMemory(bytes, limits)) {
      return matrix;
    }
  }
  return undefined;
}

const fitsMemory = (bytes: number, limits: DeviceLimits) => bytes <= limits.maxComputeWorkgroupStorageSize;

/** to_half: rows of a workgroup. Tiles have no more, and but for those of split operands divide it. */
export const HALF_ROWS = 128;

/** Rows that a head has as halves: enough for any tile that begins within them, which end to end is at any row. */
const halfRows = (rows: number, isEndToEnd: boolean, splitOperands: boolean) =>
    roundUp(rows, HALF_ROWS) + (isEndToEnd || splitOperands ? HALF_ROWS : 0);

export type HalfName = 'q'|'k'|'v'|'dOutput';

/** Shape of q, k, v or dO as halves (kernels/wgsl/half.wgsl), in 32-bit words; twice as many for split operands. */
export function halfShape(
    problem: Problem, shape: MatrixShape, name: HalfName, splitOperands = false): number[] {
  const isQuery = name === 'q' || name === 'dOutput';
  const isEndToEnd = problem.layout === 'thd';
  const rows = isQuery ? (isEndToEnd ? problem.queryRows : problem.queryLength) :
                         (isEndToEnd ? problem.keyRows : problem.keyLength);
  const size = name === 'q' || name === 'k' ? problem.headSize : problem.valueSize;
  return [
    isEndToEnd ? 1 : problem.batch, isQuery ? problem.queryHeads : problem.keyHeads,
    halfRows(rows, isEndToEnd, splitOperands),
    roundUp(size, padding(shape)) / (splitOperands ? 1 : 2),
  ];
}

/**
 * What stands in the way of running a kernel over subgroup matrices, in words.
 * @param splitOperands each is two f16.
 */
export function matrixObstacle(
    kernel: KernelName, problem: Problem, capabilities: Capabilities, splitOperands = false): string|undefined {
  const {computeType, headSize, valueSize} = problem;
  const {limits, subgroups} = capabilities;
  const isHalf = computeType === 'float16' || computeType === 'bfloat16';
  if (!splitOperands && !isHalf) {
    return `computeType ${computeType} asks for more than f16`;
  }
  if (splitOperands && isHalf) {
    return `computeType ${computeType} does not ask for more than f16`;
  }
  const shape = matrixShape(capabilities);
  if (!shape || !subgroups || subgroups.min !== subgroups.max) {
    return 'the device has no subgroup matrices of f16 with sums of f32, or subgroups of several sizes';
  }
  if (!matrixBlocking({headSize, valueSize, ...firstTime(kernel, problem, splitOperands)}, capabilities)) {
    return `no blocking for head sizes ${headSize} and ${valueSize} fits the device's workgroup memory`;
  }
  if (limits.maxStorageBuffersPerShaderStage < MOST_BUFFERS) {
    return `it binds up to ${MOST_BUFFERS} storage buffers`;
  }
  const largest = Math.max(...(['q', 'k', 'v', 'dOutput'] as const).map(
      name => 4 * halfShape(problem, shape, name, splitOperands).reduce((size, n) => size * n, 1)));
  if (largest > Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize)) {
    return `an operand in f16 takes ${largest} bytes`;
  }
  return undefined;
}

/** to_half in the backward pass: q, k, v, dO, dLSE, the largest elements, four results, block table. */
const MOST_BUFFERS = 11;
