import type {Problem} from '../../op/problem.js';

import type {Capabilities, DeviceLimits, MatrixShape} from './capabilities.js';
import type {KernelName} from './kernel_names.js';
import {
  forwardTiles, isFew, keyGradientTiles, MUCH, queryGradientTiles, splitTiles, watchedTiles,
} from './matrix_tiles.js';
import type {MatrixTiles, Work} from './matrix_tiles.js';

/** How a workgroup is blocked for subgroup matrices (kernels/wgsl/matrix.wgsl). */
export interface MatrixBlocking extends MatrixShape, MatrixTiles {
  /** Lanes of a subgroup. */
  readonly lanes: number;
}

/** The part of a plan that the sizes derive from. */
interface MatrixPlan {
  readonly kernel: KernelName;
  readonly headSize: number;
  readonly valueSize: number;
  readonly mask: boolean;
  /** forward: for tiles that it could not make the first time. */
  readonly again: boolean;
  /** Every operand is the sum of two f16: the kind `matrix_split`. */
  readonly splitOperands: boolean;
  readonly matrix: MatrixBlocking;
}

/** Whether it is the forward pass of the kind `matrix` that makes again what the first could not (matrix_watched). */
export const isWatched = ({kernel, again}: Pick<MatrixPlan, 'kernel'|'again'>): boolean =>
    kernel === 'forward' && again;

const roundUp = (n: number, multiple: number) => Math.ceil(n / multiple) * multiple;

/** Head sizes are padded to this: to whole subgroup matrices, and to the eight halves of a vec4u. */
const padding = ({N, K}: MatrixShape) => Math.max(8, N, K);

/** Constants of kernels/wgsl/half.wgsl and matrix*.wgsl that follow from a plan. */
export function deriveMatrix({kernel, headSize, valueSize, splitOperands, matrix}: MatrixPlan) {
  const {M, N, K, lanes, subgroups, blockRows, stripSubgroups, strips, flushKeys} = matrix;
  const headPad = roundUp(headSize, padding(matrix));
  const valuePad = roundUp(valueSize, padding(matrix));
  const operandParts = splitOperands ? 2 : 1;
  const common = {
    threads: lanes * subgroups, matrixM: M, matrixN: N, matrixK: K, lanes, subgroups, blockRows,
    headVec4: Math.ceil(headSize / 4), valueVec4: Math.ceil(valueSize / 4),
    operandParts, headVec8: operandParts * headPad / 8, valueVec8: operandParts * valuePad / 8,
  };
  if (kernel === 'backward_dq' || kernel === 'backward_dkv') {
    return {...common, ...derivePairs(kernel === 'backward_dkv', headPad, valuePad, operandParts, matrix)};
  }
  const lanesPerArea = lanes / M;
  const lanesPerRow = lanesPerArea * stripSubgroups;
  // A subgroup's columns of the result; there may be more than the result has.
  const partColumns = Math.ceil(valuePad / N / stripSubgroups);
  const headLoads = operandParts * blockRows * headPad / 8;
  const valueLoads = operandParts * blockRows * valuePad / 8;
  // 8 floats of padding keep rows of a stored matrix in different banks.
  const sumsStride = (blockRows + 8) / 4;
  return {
    ...common,
    strips, blockQueries: M * strips * subgroups / stripSubgroups, blockKeys: blockRows,
    // In vec4s of halves; 8 more than the row, so that eight rows lie in different banks.
    headStride: (operandParts * headPad + 8) / 4,
    valueStride: (Math.max(operandParts * valuePad, partColumns * stripSubgroups * N) + 8) / 4,
    headTrips: Math.ceil(headLoads / common.threads), valueTrips: Math.ceil(valueLoads / common.threads),
    headExact: headLoads % common.threads === 0, valueExact: valueLoads % common.threads === 0,
    headSteps: headPad / K, partColumns, tileColumns: blockRows / N / stripSubgroups,
    sampleTiles: Math.ceil(M / N), sampleRounds: Math.ceil(M / N / stripSubgroups),
    ...stagedSizes(headPad, stripSubgroups > 1 ? blockRows / stripSubgroups / 4 : sumsStride, matrix),
    sumsStride, sumsLength: subgroups / stripSubgroups * strips * M * sumsStride, stripSubgroups,
    weightsStride: (operandParts * blockRows + 8) / 4, lanesPerRow, lanesPerArea,
    rowVec4: blockRows / 4 / lanesPerRow, rowRounds: Math.log2(lanesPerRow),
    columnVec4: N / 4 / lanesPerArea,
    ...splitOperands &&
        deriveRests(flushKeys, {blockRows, stripSubgroups, partColumns, headPad, valuePad, N, lanesPerRow}),
  };
}

/** Steps over the head size whose operands fit into a row of `sums` on their way into matrices. */
function stagedSizes(pad: number, sumsStride: number, {M, N, K, lanes}: MatrixBlocking) {
  let stagedSteps = Math.min(pad / K, Math.floor(sumsStride * 8 / K));
  while (pad / K % stagedSteps > 0) {
    stagedSteps--;
  }
  return {
    stagedSteps, passes: pad / K / stagedSteps,
    stagedTrips: Math.ceil(Math.max(M, N) * stagedSteps * K / 8 / lanes),
  };
}

/** Of backward kernels: matrix_pairs.wgsl. */
function derivePairs(
    stripsAreKeys: boolean, headPad: number, valuePad: number, operandParts: number, matrix: MatrixBlocking) {
  const {M, N, K, lanes, subgroups, blockRows, strips, parts} = matrix;
  const pad = Math.max(headPad, valuePad);
  const ownRows = M * strips * subgroups / parts / 2;
  const sideLoads = operandParts * blockRows * pad / 8;
  const sideThreads = lanes * subgroups / 2;
  // What a subgroup sums: of dQ half of the columns, of dK or dV its part's. There may be more than the result has.
  const columns = stripsAreKeys ? Math.ceil(pad / N / parts) : Math.ceil(headPad / N / 2);
  const tileStride = ((operandParts - 1) * pad + Math.max(pad, (stripsAreKeys ? parts : 2) * columns * N) + 8) / 4;
  // 8 floats of padding keep rows of a stored matrix in different banks; lanes that read rows of 16 floats side by side
  // want 4.
  const sumsStride = (stripsAreKeys ? M + 4 : blockRows + 8) / 4;
  // Of a side and strip, in vec4s; on their way into matrices each part's rows of the strip lie in its share.
  const area = (stripsAreKeys ? Math.max(M * parts, blockRows) : M) * sumsStride;
  const sumsAreas = subgroups / parts * strips;
  // P and dS as f16 take the place of the products where operands are split, whose tiles and rests leave no room behind
  // them; that takes a barrier more. Several parts have so long tiles that 48 KB leave no room for padding.
  const inPlace = operandParts > 1;
  const pairsRow = stripsAreKeys ? M : blockRows;
  const pairsStride = inPlace ? sumsStride : (pairsRow + (parts > 1 ? 0 : 8)) / 8;
  const pairsArea = inPlace ? area : (stripsAreKeys ? blockRows : M) * pairsStride;
  const pairsSides = stripsAreKeys || inPlace ? 2 : 1;
  const lanesPerRow = lanes / M;
  const lanesPerQuery = Math.min(M / 4, Math.max(1, Math.floor(2 * parts * lanes / blockRows)));
  return {
    stripsAreKeys, strips, parts,
    blockQueries: stripsAreKeys ? blockRows : ownRows, blockKeys: stripsAreKeys ? ownRows : blockRows,
    steps: pad / K, columns, ...stagedSizes(operandParts * pad, sumsStride, matrix),
    headRest: headPad / 8, valueRest: valuePad / 8, tileRest: pad / 4, inPlace, pairsAt: inPlace ? 0 : sumsAreas * area,
    pairsSides, pairsStride, pairsArea, pairsRest: pairsRow / 8,
    tileVec8: operandParts * pad / 8, tileStride, tileLength: blockRows * tileStride,
    tileTrips: Math.ceil(sideLoads / sideThreads), tileExact: sideLoads % sideThreads === 0,
    sumsStride, area, sumsLength: sumsAreas * (area + (inPlace ? 0 : pairsSides * pairsArea / 2)),
    lanesPerRow, columnVec4: N / 4 / lanesPerRow, ...!stripsAreKeys && {rowVec4: blockRows / 8 / lanesPerRow},
    lanesPerQuery, partVec4: M / 4 / lanesPerQuery,
    queryTrips: Math.ceil(blockRows * lanesPerQuery / 2 / parts / lanes),
    queriesExact: blockRows * lanesPerQuery % (2 * parts * lanes) === 0,
  };
}

interface RestSizes {
  readonly blockRows: number;
  readonly stripSubgroups: number;
  readonly partColumns: number;
  readonly headPad: number;
  readonly valuePad: number;
  readonly N: number;
  readonly lanesPerRow: number;
}

/** Constants of matrix_forward_split.wgsl alone. */
function deriveRests(
    flushKeys: number,
    {blockRows, stripSubgroups, partColumns, headPad, valuePad, N, lanesPerRow}: RestSizes) {
  // As many columns of matrices as a row of `sums` holds, in whole rounds.
  let columnsAtOnce = Math.floor(blockRows / N / stripSubgroups);
  while (partColumns % columnsAtOnce > 0) {
    columnsAtOnce--;
  }
  return {
    flushTiles: Math.max(1, flushKeys / blockRows), columnsAtOnce,
    // vec4s of eight halves from a row of an operand to what rounding took from it.
    headRest: headPad / 8, valueRest: valuePad / 8,
    outputVec4: valuePad / 4 / lanesPerRow,
  };
}

/** Bytes of workgroup memory, term by term. */
export function matrixMemory(plan: MatrixPlan): Array<{name: string, bytes: number}> {
  const sizes = deriveMatrix(plan);
  if ('tileLength' in sizes) {
    return [
      {name: 'tiles', bytes: 16 * sizes.tileLength},
      {name: 'sums', bytes: 16 * sizes.sumsLength},
    ];
  }
  const {blockRows, headStride, valueStride, weightsStride, blockQueries} = sizes;
  return [
    {name: 'head_tile', bytes: 8 * blockRows * headStride},
    {name: 'value_tile', bytes: 8 * blockRows * valueStride},
    {name: 'sums', bytes: 16 * sizes.sumsLength},
    {name: 'weights', bytes: 8 * blockQueries * weightsStride},
    ...plan.splitOperands ? [{name: 'too_large', bytes: 16}] : [],
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
  const sizes = deriveMatrix(plan);
  const held = sizes.strips * ('steps' in sizes ? sizes.operandParts * sizes.steps + sizes.columns :
                                                  sizes.operandParts * sizes.headSteps + sizes.partColumns);
  return !isFallback && held <= MOST_MATRICES;
}

/** The preferred blocking that fits the device; undefined where none does. */
export function matrixBlocking(
    plan: Omit<MatrixPlan, 'matrix'>, capabilities: Capabilities, work: Work = MUCH): MatrixBlocking|undefined {
  const shape = matrixShape(capabilities);
  if (!shape) {
    return undefined;
  }
  const lanes = capabilities.subgroups!.max;
  const width = Math.max(plan.headSize, plan.valueSize);
  const columns = roundUp(plan.valueSize, padding(shape)) / shape.N;
  const tiles = plan.kernel === 'backward_dq' ? queryGradientTiles(width, work, plan.splitOperands) :
      plan.kernel === 'backward_dkv' ? keyGradientTiles(width, work, plan.splitOperands) :
      plan.splitOperands ? splitTiles(width, columns) :
      isWatched(plan) ? watchedTiles(width) : forwardTiles(width, work);
  return tiles.map(tile => ({...shape, lanes, ...tile}))
      .find(matrix => isWhole(plan.kernel, matrix) && fits({...plan, matrix}, capabilities.limits));
}

/** Whether lanes, subgroups and matrices come out even with the tiles. */
function isWhole(kernel: KernelName, matrix: MatrixBlocking): boolean {
  const {M, N, K, lanes, blockRows, stripSubgroups, parts} = matrix;
  const lanesPerArea = lanes / M;
  const shares = kernel === 'backward_dkv' ? blockRows / parts % Math.max(M, N) :
      kernel === 'backward_dq' ? blockRows % (8 * lanesPerArea) :
      blockRows / stripSubgroups % N + blockRows / stripSubgroups % (4 * lanesPerArea);
  return shares === 0 && blockRows % N === 0 && blockRows % K === 0;
}

function fits(plan: MatrixPlan, limits: DeviceLimits): boolean {
  const bytes = matrixMemory(plan).reduce((sum, term) => sum + term.bytes, 0);
  return plan.matrix.lanes * plan.matrix.subgroups <= limits.maxComputeInvocationsPerWorkgroup &&
      bytes <= limits.maxComputeWorkgroupStorageSize;
}

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
 * Terms that a product has to sum (K) for gradients of split operands to stay within float32's error budget: by 16×8×8
 * dV of 4 of 187 cases was up to 1.3 times outside (H100), truncated twice as often. No CPU truncates.
 */
const LEAST_STEP = 16;

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
  if (splitOperands && kernel !== 'forward' && shape.K < LEAST_STEP && !capabilities.isFallback) {
    return `sums of gradients by products of ${shape.K} are truncated too often for float32`;
  }
  const mask = problem.maskShape !== undefined;
  if (!matrixBlocking({kernel, headSize, valueSize, mask, splitOperands, again: false}, capabilities)) {
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

/**
 * With watchesItself: q, k, v, three copies, output, LSE and its tail, the largest elements; mask, bias, block table.
 */
const MOST_BUFFERS_ITSELF = 13;
/** Past this head size a second attempt has other tiles than the first. */
const WIDEST_ITSELF = 128;
/** Elements of a head's keys: to be ready for a second attempt costs each tile a little, a kernel of its own 5 µs. */
const MOST_KEYS_ITSELF = 2 ** 17;

/**
 * Whether the forward kernel of the kind `matrix` makes again by itself what it could not, and is all there is to do
 * behind to_half: for short calls.
 */
export function watchesItself(
    {headSize, valueSize, keyLength}: Problem, {strips}: MatrixTiles, work: Work, limits: DeviceLimits): boolean {
  const width = Math.max(headSize, valueSize);
  return isFew(work) && width <= WIDEST_ITSELF && width * keyLength <= MOST_KEYS_ITSELF && strips === 1 &&
      limits.maxStorageBuffersPerShaderStage >= MOST_BUFFERS_ITSELF;
}

/** to_half in the backward pass: q, k, v, dO, dLSE, the largest elements, four results, block table. */
const MOST_BUFFERS = 11;
