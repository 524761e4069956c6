import {
  add, addN, div, equal, exp, expandDims, fill, log, max, maximum, mul, onesLike, op, squeeze, stack, sub, sum, tidy,
  transpose, unstack, where, zeros, zerosLike,
} from '@tensorflow/tfjs-core';
import type {Tensor} from '@tensorflow/tfjs-core';

import {toTensor} from '../attend.js';
import {checkOptionNames, invalid, layoutOf} from '../options.js';
import type {AttentionLayout} from '../options.js';
import {withGradients} from './custom_gradient.js';

/** Attention over some of the keys, as `flashAttentionWithLse` and its variants return it. */
export interface AttentionPart<O extends Tensor = Tensor, L extends Tensor = Tensor> {
  /** float32 [B,N,H,Dv], or [B,H,N,Dv] with `layout: 'bhnd'`; [T,H,Dv] where sequences lie end to end. */
  readonly output: O;
  /** float32 [B,H,N]; [H,T] where sequences lie end to end. */
  readonly lse: L;
}

export interface MergeOptions {
  /** Order of the axes of the outputs of rank 4. Default `'bnhd'`. */
  layout?: AttentionLayout;
}

/** Takes the place of a maximum of −∞, so that −∞ − −∞ never comes up. */
const LOWEST_FLOAT32 = -3.4028234663852886e38;

/**
 * exp(lses − shift) [S,…], where shift [1,…] is the largest of the S. Parts of +∞ are 1 and all others of their row 0;
 * only NaN makes NaN.
 */
function shiftedExp(lses: Tensor): {terms: Tensor, shift: Tensor} {
  const shift = maximum(max(lses, 0, true), LOWEST_FLOAT32);
  return {terms: where(equal(lses, shift), onesLike(lses), exp(sub(lses, shift))), shift};
}

/** x = 0, with the gradient that tfjs' equal has not (it is 0), so that gradients have gradients. */
const isZero = (x: Tensor): Tensor =>
  withGradients([x], () => ({value: equal(x, 0), saved: []}), dZero => [zeros(dZero.shape)]);

/** weights·x, and 0 where the weight is 0, whatever x is there. */
const weighted = (weights: Tensor, x: Tensor): Tensor =>
  where(isZero(weights), zerosLike(weights), mul(weights, x));

/** Gradient of {@link partWeights}. */
const weightsGradient = (weights: Tensor, dWeights: Tensor): Tensor =>
  weighted(weights, sub(dWeights, sum(weighted(weights, dWeights), 0, true)));

/** Share of each part in the result, exp(lse_s − lse): [S,…] from LSEs [S,…]. 0 where all are −∞. */
function partWeights(lses: Tensor): Tensor {
  return withGradients([lses], () => {
    const {terms} = shiftedExp(lses);
    const total = sum(terms, 0, true);
    return {value: div(terms, add(total, equal(total, 0))), saved: [lses]};
  }, (dWeights, saved) => [weightsGradient(partWeights(saved[0]), dWeights)]);
}

/** Log-sum-exp over the first axis. */
function mergeLse(lses: Tensor): Tensor {
  return withGradients([lses], () => {
    const {terms, shift} = shiftedExp(lses);
    const total = sum(terms, 0, true);
    // WGSL's log(0) is a finite number on some devices (SwiftShader).
    const lse = where(equal(total, 0), fill(total.shape, -Infinity), add(shift, log(total)));
    return {value: squeeze(lse, [0]), saved: [lses]};
  }, (dLse, saved) => [weighted(partWeights(saved[0]), expandDims(dLse, 0))]);
}

/**
 * Σ weight_s·output_s.
 * @param lses [S,B,H,N] or [S,H,T].
 * @param headsFirst whether the axes of the outputs come in the order of those of the LSE.
 */
function mergeOutputs(outputs: readonly Tensor[], lses: Tensor, headsFirst: boolean): Tensor {
  const lastAxesSwapped = lses.rank === 4 ? [0, 1, 3, 2] : [0, 2, 1];
  // Exchanges heads and rows, from the order of LSEs to that of outputs or back.
  const reorder = (x: Tensor) => headsFirst ? x : transpose(x, lastAxesSwapped);
  const columns = (weights: Tensor) => unstack(expandDims(reorder(weights), -1));
  return withGradients([...outputs, lses], () => {
    const weights = columns(partWeights(lses));
    return {value: addN(outputs.map((output, s) => mul(output, weights[s]))), saved: [...outputs, lses]};
  }, (dOutput, saved) => {
    const savedLses = saved[saved.length - 1];
    const weights = partWeights(savedLses);
    // rowsum(dO∘output_s). The gradient of an LSE is weight_s·rowsum(dO∘(output_s − output)), and rowsum(dO∘output)
    // is the weighted sum of these: the merged output is needed no more.
    const dWeights = reorder(stack(saved.slice(0, -1).map(output => tidy(() => sum(mul(dOutput, output), -1)))));
    return [...columns(weights).map(column => mul(dOutput, column)), weightsGradient(weights, dWeights)];
  });
}

/** [B,H,N] or [H,T]. */
function lseShape(output: Tensor, layout: AttentionLayout): number[] {
  const [first, second, third] = output.shape as number[];
  if (output.rank === 3) {
    return [second, first];
  }
  return layout === 'bnhd' ? [first, third, second] : [first, second, third];
}

/** @throws when the parts do not belong together. */
function checkParts(
    parts: ReadonlyArray<AttentionPart>, layout: AttentionLayout): {outputs: Tensor[], lses: Tensor[]} {
  if (!Array.isArray(parts) || parts.length === 0) {
    throw invalid('an array of at least one part', 'parts', parts);
  }
  const outputs: Tensor[] = [];
  const lses: Tensor[] = [];
  (parts as ReadonlyArray<AttentionPart>).forEach((part, s) => {
    if (part === null || typeof part !== 'object') {
      throw invalid('an object with output and lse', `parts[${s}]`, part);
    }
    const name = `parts[${s}].output`;
    const output = toTensor(part.output, name);
    if (output.dtype !== 'float32' || (output.rank !== 3 && output.rank !== 4)) {
      throw invalid(
          `a float32 tensor, ${layout === 'bnhd' ? '[B,N,H,Dv]' : '[B,H,N,Dv]'} or [T,H,Dv]`, name, output);
    }
    const first = outputs[0] ?? output;
    if (output.shape.join() !== first.shape.join()) {
      throw invalid(`the shape of parts[0].output, [${first.shape}]`, name, output);
    }
    const lse = toTensor(part.lse, `parts[${s}].lse`);
    const expected = lseShape(output, layout);
    if (lse.dtype !== 'float32' || lse.shape.join() !== expected.join()) {
      throw invalid(
          `a float32 tensor ${output.rank === 3 ? '[H,T]' : '[B,H,N]'} = [${expected}]`, `parts[${s}].lse`, lse);
    }
    outputs.push(output);
    lses.push(lse);
  });
  return {outputs, lses};
}

function mergeAttention_<O extends Tensor, L extends Tensor>(
    parts: ReadonlyArray<AttentionPart<O, L>>, options: MergeOptions = {}): AttentionPart<O, L> {
  checkOptionNames(options, ['layout']);
  const layout = layoutOf(options.layout);
  const {outputs, lses} = checkParts(parts, layout);
  const stacked = stack(lses);
  const headsFirst = layout === 'bhnd' && outputs[0].rank === 4;
  return {output: mergeOutputs(outputs, stacked, headsFirst) as O, lse: mergeLse(stacked) as L};
}

/**
 * Attention of the same queries over several disjoint sets of keys, joined to attention over all of them: lse is the
 * log-sum-exp of the parts' lse, output is Σ exp(lse_s − lse)·output_s. For attention over keys that lie in several
 * places (a shared prefix, a split cache, other devices). Differentiable in every output and every LSE, through both
 * results.
 *
 * ```js
 * const near = flashAttentionWithLse(q, k1, v1, {causal: true});
 * const far = flashAttentionWithLse(q, k0, v0);
 * const {output, lse} = mergeAttention([near, far]);
 * ```
 *
 * A row whose parts all have an LSE of −∞ gives output 0, LSE −∞ and zero gradients. Parts with +∞ share their row in
 * equal weights, and its LSE is +∞. NaN reaches the row it is in. No part may count a sink logit twice: give `sinks` to
 * one part only. With dropout, give each part a seed of its own.
 *
 * @param parts at least one; see {@link AttentionPart} for the shapes, which are the same in all.
 * @param options `layout` of outputs of rank 4, default `'bnhd'`.
 * @returns output and lse, shaped as those of a part.
 * @throws `flashAttention: expected … for parts[1].lse, received …` and its like.
 */
export const mergeAttention = /* @__PURE__ */ op({mergeAttention_}) as unknown as typeof mergeAttention_;
