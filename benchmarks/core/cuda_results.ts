import type {Environment, ResultsFile} from './results.js';
import type {Timing} from './timing.js';

/** What benchmarks/cuda/compare.py was run on: there is no tfjs in it. */
export interface CudaEnvironment extends Omit<Environment, 'tfjs'> {
  /** The CUDA and the cuDNN of PyTorch, and NVIDIA's driver. */
  cuda?: string;
  cudnn?: string;
  driver?: string;
}

/** The kernels of this package, and those that PyTorch's scaled_dot_product_attention chooses from. */
export type CudaKind = 'flash'|'cudnn'|'flash-attention-2'|'efficient'|'math';

/** One measured line of benchmarks/results/cuda-attention-*.json. */
export interface CudaAttentionRow extends Timing {
  kind: CudaKind;
  pass: 'forward'|'backward';
  /** Of this package: whether making operands from float32 tensors counts. Its results are float32 either way. */
  conversions?: boolean;
  /** Of this package's backward pass, where `deterministic: false` has kernels of its own. */
  deterministic?: false;
  batch: number;
  heads: number;
  length: number;
  headSize: number;
  causal: boolean;
  /** `long`: one head of a million rows. */
  series: 'sweep'|'long';
  computeType: string;
  /** 4·B·H·N²·D forward, 2.5 times that backward, half under causal masking; a second. */
  tflops: number;
  /** Largest error against float64 as a share of the allowed: twice that of plain attention in the same precision. */
  share: number;
  /** The same times that of plain attention. */
  timesPlain?: number;
  /** GPU memory beyond the inputs, forward and backward. */
  peakBytes?: number;
}

/** One measured line of benchmarks/results/cuda-decode-*.json: one query over keys and values, or a copy. */
export interface CudaDecodeRow extends Timing {
  kind: CudaKind|'copy';
  computeType?: string;
  keys: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  /** Keys and values read once in the precision that they have, or a copy's bytes read and written. */
  gigabytesPerSecond: number;
}

export type CudaResultsFile<Row> = Omit<ResultsFile<Row>, 'environment'>&{environment: CudaEnvironment};
