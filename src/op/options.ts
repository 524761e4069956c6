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

/**
 * Options of {@link flashAttention}. Letters: B batch, Nq and Nk lengths, Hq query heads, Hkv key/value heads.
 * Names follow flash_attn where it has one. An option marked "not yet" is refused with an error.
 */
export interface FlashAttentionOptions {
  /** Order of the axes of q, k, v and the output. Default `'bnhd'`. */
  layout?: AttentionLayout;
  /** Each query sees only keys up to its own position. Default false. */
  causal?: boolean;
  /** Where the causal diagonal lies when Nq ≠ Nk. Default `'bottom-right'`. */
  causalAlignment?: CausalAlignment;
  /** Inclusive sliding window [left, right] in keys, −1 unbounded (flash_attn `window_size`). Not yet. */
  windowSize?: [number, number];
  /** Multiplies QKᵀ. Default 1/√D. */
  softmaxScale?: number;
  /** Scores become softcap·tanh(score/softcap); 0 is off (flash_attn `softcap`). Not yet. */
  softcap?: number;
  /** [Hq] or [B,Hq], as flash_attn `alibi_slopes`. Not yet. */
  alibiSlopes?: Tensor|TensorLike;
  /** float32, broadcastable to [B,Hq,Nq,Nk], added to the scaled scores. Not yet. */
  bias?: Tensor|TensorLike;
  /** bool, broadcastable to [B,Hq,Nq,Nk]; true attends (Keras `attention_mask`). Default: all attend. */
  mask?: Tensor|TensorLike;
  /** int32 [B]: rows of q past the length are empty. Not yet. */
  queryLengths?: Tensor|TensorLike;
  /** int32 [B]: keys past the length are not seen (flash_attn `seqused_k`). Not yet. */
  keyLengths?: Tensor|TensorLike;
  /** float32 [Hq]: a logit per head that takes part in the softmax denominator only. Not yet. */
  sinks?: Tensor|TensorLike;
  /** Probability in [0, 1) that a softmax weight is dropped; the kept ones are scaled by 1/(1−p). Default 0. */
  dropoutP?: number;
  /**
   * Integer in [0, 2⁵³) that keys the dropout generator (Philox4x32-10, counted by batch, head, query and key).
   * Default: drawn from tfjs' random generator, and used again in the backward pass.
   */
  seed?: number;
  /** Default `'float32'`. Every kernel of this version computes in float32 or better. */
  computeType?: ComputeType;
}

/** Options with every default filled in; what kernels receive as attributes. */
export interface ResolvedOptions {
  readonly layout: AttentionLayout;
  readonly causal: boolean;
  readonly causalAlignment: CausalAlignment;
  readonly softmaxScale: number;
  readonly dropoutP: number;
  readonly seed: number;
  readonly computeType: ComputeType;
}

const NOT_YET = ['windowSize', 'softcap', 'alibiSlopes', 'bias', 'queryLengths', 'keyLengths', 'sinks'] as const;

const KNOWN: ReadonlySet<string> = new Set([
  'layout', 'causal', 'causalAlignment', 'softmaxScale', 'mask', 'dropoutP', 'seed', 'computeType', ...NOT_YET,
]);

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
    return `${value.dtype} [${value.shape.join(',')}]`;
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

function finite(name: string, value: unknown, fallback: number): number {
  if (value === undefined) {
    return fallback;
  }
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalid('a finite number', name, value);
  }
  return value;
}

/**
 * Checks everything about the options that needs no tensor, and fills in the defaults.
 * @param headSize D, for the default scale.
 * @param drawSeed called only when dropout is on and no seed was given.
 */
export function resolveOptions(
    options: FlashAttentionOptions, headSize: number, drawSeed: () => number): ResolvedOptions {
  if (options === null || typeof options !== 'object' || Array.isArray(options) || options instanceof Tensor) {
    throw invalid('an object', 'options', options);
  }
  for (const key of Object.keys(options)) {
    if (!KNOWN.has(key)) {
      throw invalid(`one of ${[...KNOWN].join(', ')}`, 'the name of an option', key);
    }
  }
  for (const key of NOT_YET) {
    if (options[key] !== undefined) {
      throw invalid('nothing (not supported in this version)', key, options[key]);
    }
  }
  if (options.causal !== undefined && typeof options.causal !== 'boolean') {
    throw invalid('a boolean', 'causal', options.causal);
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
    layout: oneOf('layout', options.layout, LAYOUTS, 'bnhd'),
    causal: options.causal ?? false,
    causalAlignment: oneOf('causalAlignment', options.causalAlignment, ALIGNMENTS, 'bottom-right'),
    softmaxScale: finite('softmaxScale', options.softmaxScale, 1 / Math.sqrt(headSize)),
    dropoutP,
    seed: dropoutP === 0 ? 0 : seed ?? drawSeed(),
    computeType: oneOf('computeType', options.computeType, COMPUTE_TYPES, 'float32'),
  };
}
