import {engine, getKernel} from '@tensorflow/tfjs-core';
import type {NamedAttrMap, NamedTensorMap, Tensor, TensorInfo} from '@tensorflow/tfjs-core';

import {problemOf} from './problem.js';
import type {CallOptions, Problem, Shapes} from './problem.js';

export const FLASH_ATTENTION = 'FlashAttention';
export const FLASH_ATTENTION_GRAD = 'FlashAttentionGrad';
/** Writes new keys and values behind those in a cache: see op/variants/cache_append. */
export const FLASH_ATTENTION_CACHE_APPEND = 'FlashAttentionCacheAppend';
/**
 * Compiles what kernels would need. Backends that compile register it as they do their kernels (so it is there for each
 * copy of this package), but it is called by itself: see op/prepare.
 */
export const FLASH_ATTENTION_PREPARE = 'FlashAttentionPrepare';

/** Times the ways to run kernels: as {@link FLASH_ATTENTION_PREPARE}, see op/tune. */
export const FLASH_ATTENTION_TUNE = 'FlashAttentionTune';

/**
 * Inputs of the forward kernel, in this order: q, k and v, or a packed tensor in place of some of them, and what
 * options bring.
 */
export type AttentionInputName = keyof Shapes;
/**
 * Outputs of the forward kernel. `lseTail`, as the LSE in shape, is what rounding to float32 took from the LSE: the
 * backward pass computes exp(S − LSE), which is as wrong as the LSE is, and a large LSE has few digits after the point.
 */
export type OutputName = 'output'|'lse'|'lseTail';
/** Inputs of the gradient kernel: the forward kernel's, its outputs, and the gradients of those. */
export type GradInputName = AttentionInputName|OutputName|'dOutput'|'dLse';
/** Inputs whose gradient the gradient kernel computes. That of `sinks` needs no scores: see op/gradient. */
export type WantedGradient = 'q'|'k'|'v'|'qkv'|'kv'|'bias';

interface Recorded {
  /** tfjs records the call for gradients: its LSE must suit the backward kernels. */
  readonly forGradient?: boolean;
}

/**
 * tfjs saves the inputs of a kernel for its gradient either by a fixed list of names, which an optional input
 * breaks, or all of them when the inputs are an array. So both kernels take an array, named by `inputNames`.
 */
export interface AttentionAttrs extends CallOptions, Recorded {
  readonly inputNames: readonly AttentionInputName[];
  /** Nobody asks for more than the output: a backend may give it alone. */
  readonly outputOnly?: boolean;
}

/** Everything named, if only to say that it is undefined. */
type Complete<T> = {[name in keyof Required<T>]: T[name]};

/** Attributes field by field: an object that is made by spreading another takes a microsecond, and more to read. */
export function attentionAttrs(
    {
      layout, causalAlignment, windowLeft, windowRight, softmaxScale, softcap, dropoutP, seed, computeType,
      deterministic, queryOffsets, keyOffsets, cache, splits,
    }: CallOptions,
    inputNames: readonly AttentionInputName[], forGradient: boolean,
    outputOnly: boolean): Complete<AttentionAttrs> {
  return {
    layout, causalAlignment, windowLeft, windowRight, softmaxScale, softcap, dropoutP, seed, computeType,
    deterministic, queryOffsets, keyOffsets, cache, splits, inputNames, forGradient, outputOnly,
  };
}

export interface GradAttrs extends CallOptions, Recorded {
  readonly inputNames: readonly GradInputName[];
  /** Which gradients to compute; the kernel's outputs, in this order. */
  readonly wanted: readonly WantedGradient[];
}

type Named<Name extends string, T> = {[name in Name]?: T};

/** The array of inputs as an object, by the names in the attributes. */
export function byName<Name extends string, T>(names: readonly Name[], inputs: ArrayLike<T>): Named<Name, T> {
  const named: Named<Name, T> = {};
  names.forEach((name, i) => {
    named[name] = inputs[i];
  });
  return named;
}

/** What a backend's kernel works from: the tensors by name, the Problem, and the seed of dropout. */
export interface KernelCall<Name extends string> {
  /** q, k and v are always there: where they are packed, each is the tensor that holds it. */
  readonly tensors: Named<Name, TensorInfo>&{q: TensorInfo, k: TensorInfo, v: TensorInfo};
  readonly problem: Problem;
  readonly seed: number;
}

export function kernelCall<Name extends GradInputName>(
    inputs: unknown, attrs: CallOptions&{inputNames: readonly Name[]}): KernelCall<Name> {
  const tensors = byName<GradInputName, TensorInfo>(attrs.inputNames, inputs as TensorInfo[]);
  const {qkv, kv} = tensors;
  const rows = {q: tensors.q ?? qkv!, k: tensors.k ?? kv ?? qkv!, v: tensors.v ?? kv ?? qkv!};
  return {
    tensors: {...tensors as Named<Name, TensorInfo>, ...rows},
    problem: problemOf(tensors, attrs),
    seed: attrs.seed,
  };
}

/** Inputs of the append kernel: new rows, the caches, where they go (`sequences`), and the pages, if there are any. */
export type AppendInputName = 'newK'|'newV'|'k'|'v'|'sequences'|'blockTable';

export interface AppendAttrs {
  readonly inputNames: readonly AppendInputName[];
  /** Give an error rather than copy where the backend cannot write into a tensor. */
  readonly inPlace: boolean;
}

export interface AppendCall {
  readonly tensors: Named<AppendInputName, TensorInfo>&Record<'newK'|'newV'|'k'|'v'|'sequences', TensorInfo>;
  /** Attention whose queries are the new keys and whose output would be the new values: so they all have strides. */
  readonly problem: Problem;
}

const APPEND_OPTIONS: CallOptions = {
  layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: -1, softmaxScale: 1, softcap: 0,
  dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true, cache: true,
};

export function appendCall(inputs: unknown, {inputNames}: AppendAttrs): AppendCall {
  const tensors = byName(inputNames, inputs as TensorInfo[]) as AppendCall['tensors'];
  const {newK, k, v, sequences, blockTable} = tensors;
  return {
    tensors,
    problem: problemOf({q: newK, k, v, sequences, blockTable}, APPEND_OPTIONS),
  };
}

/** A run of one of our kernels, without the contents of its tensors. */
export interface PlannedKernel {
  readonly name: typeof FLASH_ATTENTION|typeof FLASH_ATTENTION_GRAD|typeof FLASH_ATTENTION_CACHE_APPEND;
  readonly inputs: readonly TensorInfo[];
  readonly attrs: AttentionAttrs|GradAttrs|AppendAttrs;
}

/** One kind of plans that a call can run by. Plain data. */
export interface TunedKind {
  /** `simt`, `subgroup`, `matrix`, `matrix_split` or `decode`. */
  readonly kind: string;
  /** Milliseconds of a call, by the median; absent where it takes no part. */
  readonly milliseconds?: number;
  /** Why it takes no part: it does not compile here, or gives other results than `simt`. */
  readonly problem?: string;
}

/** What `tune` found. Plain data. */
export interface TuneReport {
  /** The adapter and what it gave: what the winner is remembered by, with `problems`. */
  readonly adapter: string;
  /** The class of calls that it holds for. */
  readonly problems: string;
  /** The kinds that were timed; none where there is only one. */
  readonly timed: readonly TunedKind[];
  /** The fastest, by which calls of that class run from now on. */
  readonly winner: string;
  /** Where it is remembered for later runs; absent where it is not. */
  readonly rememberedIn?: string;
}

export type TuneKernel =
    (backend: unknown, kernels: readonly PlannedKernel[], milliseconds: number) => Promise<TuneReport>;

export type PrepareKernel = (backend: unknown, kernels: readonly PlannedKernel[]) => Promise<void>;

let registerFallback: ((backendName: string) => void)|undefined;

/** Names the kernel that serves every backend without one of its own. It is registered at first use. */
export function setFallbackKernels(register: (backendName: string) => void): void {
  registerFallback = register;
}

/** Runs one of our kernels on the current backend. */
export function runAttentionKernel(
    name: string, inputs: readonly Tensor[], attrs: AttentionAttrs|GradAttrs|AppendAttrs): Tensor[] {
  // Reading `backend` initialises the default one, as every tfjs op does.
  void engine().backend;
  const {backendName} = engine();
  if (getKernel(name, backendName) == null) {
    registerFallback?.(backendName);
  }
  return engine().runKernel(
      name, inputs as unknown as NamedTensorMap, attrs as unknown as NamedAttrMap) as Tensor[];
}
