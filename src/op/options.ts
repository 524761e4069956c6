import {Tensor} from '@tensorflow/tfjs-core';
import type {TensorLike} from '@tensorflow/tfjs-core';

/** `bnhd` is flash_attn's [batch, length, heads, size]; `bhnd` is PyTorch's [batch, heads, length, size]. */
export type AttentionLayout = 'bnhd'|'bhnd';

/**
 * Which corner of the score matrix the causal diagonal ends in when Nq ≠ Nk: `bottom-right` as
 * flash_attn ≥ 2.1 (key j is seen by query i when j ≤ i + Nk − Nq), `top-left` as Keras and PyTorch (j ≤ i).
 */
export type CausalAlignment = 'bottom-right'|'top-left';

/** The least precision allowed inside a kernel. A backend may always do better, never worse. */
export type ComputeType = 'float32'|'tensorfloat32'|'float16'|'bfloat16';

/** What every form of attention here understands. Letters and names as in {@link FlashAttentionOptions}. */
export interface CommonOptions {
  /** Each query sees only keys up to its own position: a window whose right side is 0. Default false. */
  causal?: boolean;
  /** Where the diagonal of causal, window and ALiBi lies when Nq ≠ Nk. Default `'bottom-right'`. */
  causalAlignment?: CausalAlignment;
  /**
   * Inclusive sliding window [left, right] in keys around the diagonal, −1 unbounded (flash_attn `window_size`).
   * Default [−1, −1]. Cost grows with N·window.
   */
  windowSize?: readonly [number, number];
  /** Multiplies QKᵀ. Default 1/√D. */
  softmaxScale?: number;
  /** Scores become softcap·tanh(score/softcap); 0 is off (flash_attn `softcap`). Default 0. */
  softcap?: number;
  /**
   * float32 [Hq] or [B,Hq], as flash_attn `alibi_slopes`: −slope·|i + offset − j| is added to the score of query i and
   * key j, with the offset of `causalAlignment`. Has no gradient. See `alibiSlopes()`.
   */
  alibiSlopes?: Tensor|TensorLike;
  /**
   * float32 [Hq]: a logit per head that takes part in the softmax denominator only ("attention sinks"). −∞ is none.
   * Has a gradient.
   */
  sinks?: Tensor|TensorLike;
  /** Probability in [0, 1) that a softmax weight is dropped; the kept ones are scaled by 1/(1−p). Default 0. */
  dropoutP?: number;
  /**
   * Integer in [0, 2⁵³) that keys the dropout generator (Philox4x32-10, counted by batch, head, query and key).
   * Default: drawn from tfjs' random generator, and used again in the backward pass.
   */
  seed?: number;
  /**
   * The least precision allowed inside. Default `'float32'`. `'float16'` and `'bfloat16'` let larger problems run over
   * subgroup matrices on WebGPU (f16 operands, float32 sums); everything else computes in float32 or better.
   */
  computeType?: ComputeType;
  /**
   * Whether gradients must have the same bits every time (flash_attn `deterministic`). Default true. With false CUDA
   * kernels may add dQ in any order, which is faster where there are such kernels: any `computeType` but
   * `'float32'`, GPUs of compute capability 9.0, D and Dv up to 128, no mask, bias, ALiBi, softcap or dropout. All
   * other kernels are deterministic anyway, and so is every forward pass.
   */
  deterministic?: boolean;
}

/**
 * Options of {@link flashAttention}. Letters: B batch, Nq and Nk lengths, Hq query heads, Hkv key/value heads.
 * Names follow flash_attn where it has one.
 */
export interface FlashAttentionOptions extends CommonOptions {
  /** Order of the axes of q, k, v and the output. Default `'bnhd'`. */
  layout?: AttentionLayout;
  /**
   * float32, broadcastable to [B,Hq,Nq,Nk], added to the scaled (and capped) scores. An entry of −∞ hides its pair as
   * `mask` does. Has a gradient, reduced to its own shape.
   */
  bias?: Tensor|TensorLike;
  /** bool, broadcastable to [B,Hq,Nq,Nk]; true attends (Keras `attention_mask`). Default: all attend. */
  mask?: Tensor|TensorLike;
  /**
   * int32 [B]: rows of q past the length are empty, and causal, window and ALiBi count from it instead of Nq. The
   * values of a tensor are not read back: below 0 and above Nq count as these bounds. Values of an array are checked.
   */
  queryLengths?: Tensor|TensorLike;
  /** int32 [B]: keys past the length are not seen (flash_attn `seqused_k`); the rest as `queryLengths`. */
  keyLengths?: Tensor|TensorLike;
}

/** As {@link AttentionLayout}, and sequences end to end: [total length, heads, size] (flash_attn's varlen). */
export type TensorLayout = AttentionLayout|'thd';

/** Options with every default filled in; what kernels receive as attributes. */
export interface ResolvedOptions {
  readonly layout: TensorLayout;
  readonly causalAlignment: CausalAlignment;
  /** Inclusive, −1 unbounded. Causal is a right side of 0. */
  readonly windowLeft: number;
  readonly windowRight: number;
  readonly softmaxScale: number;
  /** 0 is off. */
  readonly softcap: number;
  readonly dropoutP: number;
  readonly seed: number;
  readonly computeType: ComputeType;
  readonly deterministic: boolean;
}

const COMMON = [
  'causal', 'causalAlignment', 'windowSize', 'softmaxScale', 'softcap', 'alibiSlopes', 'sinks', 'dropoutP', 'seed',
  'computeType', 'deterministic',
] as const satisfies ReadonlyArray<keyof CommonOptions>;

/** Names of the options of `flashAttention`. */
export const ATTENTION_OPTIONS: readonly string[] = [
  'layout', ...COMMON, 'bias', 'mask', 'queryLengths', 'keyLengths',
];
/** Names of the options where sequences lie end to end. */
export const COMMON_OPTIONS: readonly string[] = COMMON;

const LAYOUTS: readonly AttentionLayout[] = ['bnhd', 'bhnd'];
const ALIGNMENTS: readonly CausalAlignment[] = ['bottom-right', 'top-left'];
const COMPUTE_TYPES: readonly ComputeType[] = ['float32', 'tensorfloat32', 'float16', 'bfloat16'];

/** The one form of every error about arguments: `flashAttention: expected <what> for <name>, received <value>`. */
export function invalid(expected: string, name: string, received: unknown): Error {
  return new Error(`flashAttention: expected ${expected} for ${name}, received ${describe(received)}`);
}

/** A short, single-line rendering of any value for an error message. */
export function describe(value: unknown): string {
  if (value instanceof Tensor) {
    return value.isDisposed ? 'a disposed tensor' : `${value.dtype} [${value.shape.join(',')}]`;
  }
  if (typeof value === 'string') {
    return `'${value}'`;
  }
  if (Array.isArray(value)) {
    return value.length > 8 ? `an array of ${value.length}` : `[${value.map(describe).join(',')}]`;
  }
  if (ArrayBuffer.isView(value)) {
    return value.constructor.name;
  }
  if (typeof value === 'function') {
    return 'a function';
  }
  if (value !== null && typeof value === 'object') {
    return `an object with keys [${Object.keys(value).join(',')}]`;
  }
  return String(value);
}

function oneOf<T extends string>(name: string, value: unknown, allowed: readonly T[], fallback: T): T {
  if (value === undefined) {
    return fallback;
  }
  if (!allowed.includes(value as T)) {
    throw invalid(`one of ${allowed.map(a => `'${a}'`).join(', ')}`, name, value);
  }
  return value as T;
}

export const layoutOf = (value: unknown): AttentionLayout => oneOf('layout', value, LAYOUTS, 'bnhd');

export function booleanOption(name: string, value: unknown, fallback = false): boolean {
  if (value !== undefined && typeof value !== 'boolean') {
    throw invalid('a boolean', name, value);
  }
  return value ?? fallback;
}

function finite(name: string, value: unknown, fallback: number): number {
  if (value === undefined) {
    return fallback;
  }
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalid('a finite number', name, value);
  }
  return value;
}

/** Window of `windowSize` and `causal` together: [left, right], −1 unbounded. */
function windowOf({windowSize, causal}: CommonOptions): [number, number] {
  const isCausal = booleanOption('causal', causal);
  if (windowSize !== undefined &&
      !(Array.isArray(windowSize) && windowSize.length === 2 &&
        windowSize.every(n => Number.isSafeInteger(n) && n >= -1 && n < 2 ** 31))) {
    throw invalid('[left, right], two integers of at least −1', 'windowSize', windowSize);
  }
  const [left, right] = windowSize ?? [-1, -1];
  return [left, isCausal ? 0 : right];
}

/** @throws when `options` is no object of options, or holds a name that is not among `known`. */
export function checkOptionNames(options: unknown, known: readonly string[]): void {
  if (options === null || typeof options !== 'object' || Array.isArray(options) || options instanceof Tensor) {
    throw invalid('an object', 'options', options);
  }
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw invalid(`one of ${known.join(', ')}`, 'the name of an option', key);
    }
  }
}

/**
 * Checks everything about the options that needs no tensor, and fills in the defaults. Names were checked before.
 * @param headSize D, for the default scale.
 * @param drawSeed called only when dropout is on and no seed was given.
 */
export function resolveOptions(
    options: CommonOptions, layout: TensorLayout, headSize: number, drawSeed: () => number): ResolvedOptions {
  const [windowLeft, windowRight] = windowOf(options);
  const softcap = finite('softcap', options.softcap, 0);
  if (softcap < 0) {
    throw invalid('a number of at least 0', 'softcap', softcap);
  }
  const dropoutP = finite('dropoutP', options.dropoutP, 0);
  if (dropoutP < 0 || dropoutP >= 1) {
    throw invalid('a probability in [0, 1)', 'dropoutP', dropoutP);
  }
  const {seed} = options;
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw invalid('an integer in [0, 2^53)', 'seed', seed);
  }
  return {
    layout, windowLeft, windowRight, softcap, dropoutP,
    causalAlignment: oneOf('causalAlignment', options.causalAlignment, ALIGNMENTS, 'bottom-right'),
    softmaxScale: finite('softmaxScale', options.softmaxScale, 1 / Math.sqrt(headSize)),
    computeType: oneOf('computeType', options.computeType, COMPUTE_TYPES, 'float32'),
    deterministic: booleanOption('deterministic', options.deterministic, true),
    seed: dropoutP === 0 ? 0 : seed ?? drawSeed(),
  };
}
