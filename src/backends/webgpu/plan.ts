import type {Problem} from '../../op/problem.js';

/** The WGSL kernels: kernels/wgsl/<name>.wgsl. */
export type KernelName = 'forward'|'row_statistics'|'backward_dq'|'backward_dkv';

/** The limits of a GPUDevice that plans and windows depend on. */
export type DeviceLimits = Pick<
    GPUSupportedLimits,
    'maxComputeWorkgroupStorageSize'|'maxComputeInvocationsPerWorkgroup'|'maxComputeWorkgroupSizeX'|
    'maxComputeWorkgroupsPerDimension'|'maxStorageBufferBindingSize'|'maxBufferSize'|
    'minStorageBufferOffsetAlignment'>;

/** Parts of a kernel that are compiled in or out. */
export interface Features {
  readonly causal: boolean;
  readonly mask: boolean;
  readonly dropout: boolean;
  /** row_statistics: LSE has a gradient too. */
  readonly hasLseGradient: boolean;
  /** backward_dkv: which of its two results are wanted. */
  readonly wantKeys: boolean;
  readonly wantValues: boolean;
}

/** How a workgroup is blocked (kernels/wgsl/tiles.wgsl). */
export interface Blocking {
  readonly threadsX: number;
  readonly threadsY: number;
  /** Queries of one thread. */
  readonly rows: number;
  /** vec4s of D (of Dv, for dO·Vᵀ) that are in workgroup memory at a time while scores are made. */
  readonly chunk: number;
  /** Rows of the right operand that are in workgroup memory at a time while results are made. */
  readonly rowChunk: number;
}

/**
 * All that distinguishes one pipeline from another: the shader's header, the pipeline key and the dispatch derive
 * from it. Numbers that change from call to call (lengths, heads, strides) are not in it.
 */
export interface Plan extends Blocking, Features {
  readonly kernel: KernelName;
  readonly headSize: number;
  readonly valueSize: number;
  /** Storage buffers are read as vec4f; otherwise one float at a time. */
  readonly vectorised: boolean;
}

/** Sizes that follow from a plan, in vec4s where not said otherwise. */
export interface Derived {
  readonly threads: number;
  readonly blockQueries: number;
  readonly blockKeys: number;
  readonly headVec4: number;
  readonly valueVec4: number;
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

/** Threads of the one-pass row_statistics kernel, one to a row. */
const ROW_STATISTICS_THREADS = 64;

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

/** Bytes of workgroup memory, term by term as WebGPU counts them (each variable rounded up to 16). */
export function workgroupMemory(plan: Plan): Array<{name: string, bytes: number}> {
  if (plan.kernel === 'row_statistics') {
    return [];
  }
  const {leftLength, rightLength} = derive(plan);
  return [
    {name: 'left', bytes: 16 * leftLength},
    {name: 'right', bytes: 16 * rightLength},
    {name: 'right_not_finite', bytes: 16},
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
function blockings(kernel: KernelName, width: number): Array<[number, number, number]> {
  switch (kernel) {
    case 'backward_dkv':
      return [[16, 16, 4], [16, 16, 2], [16, 8, 2]];
    case 'backward_dq':
      return [[16, 16, 4], [16, 16, 2], [16, 8, 4]];
    default:
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

/**
 * Chooses the plan for a kernel: the preferred blocking that fits the device, with the largest steps that fit.
 * Pure; what it can choose is in the table test.
 * @throws when the device offers less than WebGPU guarantees (no plan fits).
 */
export function makePlan(
    kernel: KernelName, problem: Problem, limits: DeviceLimits, features: Partial<Features> = {}): Plan {
  const {headSize, valueSize} = problem;
  const common = {
    kernel, headSize, valueSize,
    vectorised: headSize % 4 === 0 && valueSize % 4 === 0,
    causal: problem.causal,
    mask: problem.maskShape !== undefined,
    dropout: problem.dropoutP > 0,
    hasLseGradient: false, wantKeys: false, wantValues: false,
    ...features,
  };
  if (kernel === 'row_statistics') {
    // No tiles: the blocking only carries the number of threads. Masks make no difference to it.
    return {
      ...common, causal: false, mask: false, dropout: false,
      threadsX: ROW_STATISTICS_THREADS, threadsY: 1, rows: 1, chunk: 1, rowChunk: 1,
    };
  }
  const widths = kernel === 'forward' ? [vec4s(headSize)] : [vec4s(headSize), vec4s(valueSize)];
  for (const [threadsX, threadsY, rows] of blockings(kernel, Math.max(headSize, valueSize))) {
    for (let most = LARGEST_CHUNK; most >= 1; most /= 2) {
      const stepless: Plan = {...common, threadsX, threadsY, rows, chunk: chunkOf(widths, most), rowChunk: 4};
      // As many rows a step as fit into what the scores need anyway, or into 4 KB.
      const {rightLength, rightWidth} = derive(stepless);
      const rowChunk = [32, 16, 8].find(n => n * rightWidth <= Math.max(rightLength, 256)) ?? 4;
      const plan: Plan = {...stepless, rowChunk};
      if (fits(plan, limits)) {
        return plan;
      }
    }
  }
  throw new Error(
      `flashAttention: no ${kernel} kernel for head sizes ${headSize} and ${valueSize} fits a WebGPU device with ` +
      `maxComputeWorkgroupStorageSize ${limits.maxComputeWorkgroupStorageSize} and ` +
      `maxComputeInvocationsPerWorkgroup ${limits.maxComputeInvocationsPerWorkgroup}; use another backend`);
}

/** One string a pipeline. */
export function planKey(plan: Plan): string {
  return JSON.stringify(plan);
}

/** Workgroups of a dispatch over a window. */
export function workgroupCount(
    plan: Plan, window: {batches: number, heads: number, queries: number, keys: number},
    headsPerKey: number): number {
  const {blockQueries, blockKeys} = derive(plan);
  switch (plan.kernel) {
    case 'row_statistics':
      return Math.ceil(window.queries / ROW_STATISTICS_THREADS) * window.heads * window.batches;
    case 'backward_dkv':
      return Math.ceil(window.keys / blockKeys) * (window.heads / headsPerKey) * window.batches;
    default:
      return Math.ceil(window.queries / blockQueries) * window.heads * window.batches;
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
