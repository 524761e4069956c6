import {engine, getKernel} from '@tensorflow/tfjs-core';
import type {NamedAttrMap, NamedTensorMap, Tensor, TensorInfo} from '@tensorflow/tfjs-core';

import {makeProblem} from './problem.js';
import type {Problem} from './problem.js';
import type {ResolvedOptions} from './options.js';

export const FLASH_ATTENTION = 'FlashAttention';
export const FLASH_ATTENTION_GRAD = 'FlashAttentionGrad';

/** Inputs of the forward kernel, in order; those after `v` may be absent. */
export type AttentionInputName = 'q'|'k'|'v'|'mask';
/**
 * Outputs of the forward kernel. `lseTail` [B,Hq,Nq] is what rounding to float32 took from the LSE: the backward pass
 * computes exp(S − LSE), which is as wrong as the LSE is, and a large LSE has few digits after the point.
 */
export type OutputName = 'output'|'lse'|'lseTail';
/** Inputs of the gradient kernel: the forward kernel's, its outputs, and the gradients of those. */
export type GradInputName = AttentionInputName|OutputName|'dOutput'|'dLse';
/** Inputs that have a gradient. */
export type WantedGradient = 'q'|'k'|'v';

/**
 * tfjs saves the inputs of a kernel for its gradient either by a fixed list of names, which an optional input
 * breaks, or all of them when the inputs are an array. So both kernels take an array, named by `inputNames`.
 */
export interface AttentionAttrs extends ResolvedOptions {
  readonly inputNames: readonly AttentionInputName[];
}

export interface GradAttrs extends ResolvedOptions {
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

/** What a backend's kernel works from: the tensors by name, and the Problem. */
export interface KernelCall<Name extends string> {
  readonly tensors: Named<Name, TensorInfo>&{q: TensorInfo, k: TensorInfo, v: TensorInfo};
  readonly problem: Problem;
}

export function kernelCall<Name extends string>(
    inputs: unknown, attrs: ResolvedOptions&{inputNames: readonly Name[]}): KernelCall<Name> {
  const tensors = byName(attrs.inputNames, inputs as TensorInfo[]) as KernelCall<Name>['tensors'];
  const {mask} = tensors as Named<AttentionInputName, TensorInfo>;
  return {tensors, problem: makeProblem(tensors.q, tensors.k, tensors.v, attrs, mask)};
}

let registerFallback: ((backendName: string) => void)|undefined;

/** Names the kernel that serves every backend without one of its own. It is registered at first use. */
export function setFallbackKernels(register: (backendName: string) => void): void {
  registerFallback = register;
}

/** Runs one of our kernels on the current backend. */
export function runAttentionKernel(
    name: string, inputs: readonly Tensor[], attrs: AttentionAttrs|GradAttrs): Tensor[] {
  // Reading `backend` initialises the default one, as every tfjs op does.
  void engine().backend;
  const {backendName} = engine();
  if (getKernel(name, backendName) == null) {
    registerFallback?.(backendName);
  }
  return engine().runKernel(
      name, inputs as unknown as NamedTensorMap, attrs as unknown as NamedAttrMap) as Tensor[];
}
