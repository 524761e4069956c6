import type {Timing} from './timing.js';

/** What a result was measured on. */
export interface Environment {
  date: string;
  commit: string;
  backend: string;
  device: string;
  tfjs: string;
  /** Versions of what else took part, where it did. */
  node?: string;
  webgpu?: string;
  browser?: string;
  onnxruntime?: string;
  /** Of the library behind backend tensorflow. */
  tensorflow?: string;
  pytorch?: string;
  /** Instruction set of the native addon's kernels. */
  native?: string;
  /** Of everything that computes on the CPU, where that was set. */
  threads?: number;
}

/**
 * What computes attention: this package; tfjs' own matMul, softmax, matMul; onnxruntime-node's WebGPU execution
 * provider; PyTorch's scaled_dot_product_attention on the CPU.
 */
export type AttentionKind = 'flash'|'standard'|'onnxruntime'|'pytorch';
export type Pass = 'forward'|'forward+backward';

/**
 * Why a shape is measured: the sweep over lengths at one number of tokens, or over lengths at one sequence. Older files
 * also have the shape that the project's targets named, and single heads.
 */
export type Series = 'sweep'|'one sequence'|'target'|'one head';

export interface AttentionShape {
  batch: number;
  heads: number;
  length: number;
  headSize: number;
}

/** How precisely, and with which plan. Older files have neither: float32 as the plan chose. */
export interface Computation {
  /** Where a run has several: the tfjs backend, or `pytorch`. Absent: the environment's. */
  backend?: string;
  /** False where the TypeScript kernel took the native addon's place. */
  native?: boolean;
  computeType?: string;
  /** The variant's label where a plan was forced, else as chosen for the device. */
  plan?: string;
}

/** GPU time, where the device has timestamp queries: the sum over the kernels of a run, without what is between. */
export interface GpuTiming {
  gpuMs?: number;
}

/** One measured line of benchmarks/results/attention-*.json. */
export interface AttentionRow extends AttentionShape, Computation, Timing, GpuTiming {
  kind: AttentionKind;
  pass: Pass;
  causal: boolean;
  series: Series;
  /** By `medianMs`. 4·B·H·N²·D forward, 2.5 times that more for backward, halved under causal masking; per second. */
  tflops: number;
  /** Of forward and backward: the forward pass alone, recorded for gradients, which may be by another plan. */
  recordedMs?: number;
  /** Every input read once and every output written once. */
  leastBytes: number;
  /** GPU memory that the backend allocates for a run, beyond the inputs. Not known of onnxruntime. */
  peakBytes?: number;
  /** Largest error of a few rows of the output against float64, relative to the largest value. */
  error?: number;
}

/**
 * What is measured of one query over cached keys: this package's attention over a cache, tfjs' matMul, softmax, matMul
 * over the same rows, PyTorch's attention, or, as what the memory can do, a copy from one buffer to another or (`read`)
 * one pass over the bytes of k and v.
 */
export type DecodeKind = 'flash'|'standard'|'copy'|'pytorch'|'read';

/** One measured line of benchmarks/results/decode-*.json. */
export interface DecodeRow extends Computation, Timing, GpuTiming {
  kind: DecodeKind;
  /** Keys in the cache, one query, one sequence; of a copy 0, as all that follow. */
  keys: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  /** Parts of the keys that were asked for; 0 leaves it to the plan. */
  numSplits: number;
  /** Of the cache, where it was chosen; absent: bnhd. */
  layout?: 'bnhd'|'bhnd';
  /** Of `read`: the fastest of those that were tried. */
  how?: string;
  /** k and v read once, or a copy's bytes read and written, by `medianMs`. */
  gigabytesPerSecond: number;
  error?: number;
}

/** One measured line of benchmarks/results/host-*.json: JavaScript time of a small call, the GPU not waited for. */
export interface HostRow extends Computation {
  kind: 'flash'|'standard';
  pass: Pass;
  /** Median and least over batches of calls, tfjs' submits included. */
  medianMicroseconds: number;
  leastMicroseconds: number;
  batches: number;
  callsPerBatch: number;
  /** What a call leaves behind at steady state: tensors, GPU buffers, bytes of JavaScript heap where it is known. */
  tensorsPerCall: number;
  buffersPerCall: number;
  heapBytesPerCall?: number;
}

/** One measured line of benchmarks/results/training-*.json: the GPT of `npm start`. */
export interface TrainingRow extends Computation {
  kind: 'flash'|'standard';
  context: number;
  layers: number;
  heads: number;
  width: number;
  batch: number;
  parameters: number;
  steps: number;
  medianMs: number;
  spread: number;
  /** By the median step. */
  tokensPerSecond: number;
  peakBytes: number;
  firstLoss: number;
  lastLoss: number;
}

/** What was to be measured and was not. */
export interface Skipped {
  /** What it was, in words. Older files have its shape instead. */
  label?: string;
  why: string;
}

export interface ResultsFile<Row> {
  environment: Environment;
  results: Row[];
  skipped?: Skipped[];
}

/** What can be measured, and what its rows look like. The name is that of the results file, too. */
export interface Rows {
  attention: AttentionRow;
  decode: DecodeRow;
  host: HostRow;
  training: TrainingRow;
}
export type SuiteName = keyof Rows;
export type Row = Rows[SuiteName];
