import type {TensorInfo} from '@tensorflow/tfjs-core';

import {invalid} from './options.js';
import type {AttentionLayout, ResolvedOptions} from './options.js';

/** Largest D and Dv that the kernels are built for (flash_attn's bound). */
export const MAX_HEAD_SIZE = 256;

/**
 * One call of the op: validated, immutable, without tensors. Every backend's kernel and plan derives from it.
 * A query head h reads key/value head ⌊h·keyHeads/queryHeads⌋.
 */
export interface Problem extends ResolvedOptions {
  readonly batch: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly queryHeads: number;
  readonly keyHeads: number;
  /** D: size of a query and a key. */
  readonly headSize: number;
  /** Dv: size of a value and of an output. */
  readonly valueSize: number;
  /** The mask's own four axes before broadcasting, each 1 or as in [B,Hq,Nq,Nk]; absent without a mask. */
  readonly maskShape?: readonly [number, number, number, number];
}

/** Distance in elements between neighbours along each axis of a tensor, whatever its layout. */
export interface Strides {
  readonly batch: number;
  readonly row: number;
  readonly head: number;
}

type Shaped = Pick<TensorInfo, 'shape'>;

function axes(tensor: Shaped, layout: AttentionLayout) {
  const [batch, a, b, size] = tensor.shape as [number, number, number, number];
  return layout === 'bnhd' ? {batch, rows: a, heads: b, size} : {batch, rows: b, heads: a, size};
}

/** Checks that the shapes belong together and gives the Problem. Shapes are rank 4; the mask already is. */
export function makeProblem(
    q: Shaped, k: Shaped, v: Shaped, options: ResolvedOptions, mask?: Shaped): Problem {
  const {layout} = options;
  const query = axes(q, layout);
  const key = axes(k, layout);
  const value = axes(v, layout);
  if (query.size < 1 || query.size > MAX_HEAD_SIZE) {
    throw invalid(`a head size from 1 to ${MAX_HEAD_SIZE} (last axis)`, 'q', q.shape);
  }
  if (key.size !== query.size) {
    throw invalid(`the head size of q, ${query.size} (last axis)`, 'k', k.shape);
  }
  if (value.size < 1 || value.size > MAX_HEAD_SIZE) {
    throw invalid(`a head size from 1 to ${MAX_HEAD_SIZE} (last axis)`, 'v', v.shape);
  }
  if (key.batch !== query.batch) {
    throw invalid(`the batch size of q, ${query.batch}`, 'k', k.shape);
  }
  if (value.batch !== query.batch) {
    throw invalid(`the batch size of q, ${query.batch}`, 'v', v.shape);
  }
  if (value.rows !== key.rows) {
    throw invalid(`the length of k, ${key.rows} (layout '${layout}')`, 'v', v.shape);
  }
  if (value.heads !== key.heads) {
    throw invalid(`the number of heads of k, ${key.heads} (layout '${layout}')`, 'v', v.shape);
  }
  if (key.heads < 1 || query.heads % key.heads !== 0) {
    throw invalid(
        `a number of heads that divides the ${query.heads} of q (layout '${layout}')`, 'k', k.shape);
  }
  const problem: Problem = {
    layout: options.layout,
    causal: options.causal,
    causalAlignment: options.causalAlignment,
    softmaxScale: options.softmaxScale,
    dropoutP: options.dropoutP,
    seed: options.seed,
    computeType: options.computeType,
    batch: query.batch,
    queryLength: query.rows,
    keyLength: key.rows,
    queryHeads: query.heads,
    keyHeads: key.heads,
    headSize: query.size,
    valueSize: value.size,
  };
  if (mask === undefined) {
    return problem;
  }
  const full = scoreShape(problem);
  if (mask.shape.length !== 4 || mask.shape.some((n, axis) => n !== 1 && n !== full[axis])) {
    throw invalid(`a shape that broadcasts to [B,Hq,Nq,Nk] = [${full}]`, 'mask', mask.shape);
  }
  return {...problem, maskShape: mask.shape as [number, number, number, number]};
}

/** [B,Hq,Nq,Nk]. Nothing of this shape is ever allocated. */
export function scoreShape(p: Problem): [number, number, number, number] {
  return [p.batch, p.queryHeads, p.queryLength, p.keyLength];
}

function inLayout(p: Problem, rows: number, heads: number, size: number): [number, number, number, number] {
  return p.layout === 'bnhd' ? [p.batch, rows, heads, size] : [p.batch, heads, rows, size];
}

export const queryShape = (p: Problem) => inLayout(p, p.queryLength, p.queryHeads, p.headSize);
export const keyShape = (p: Problem) => inLayout(p, p.keyLength, p.keyHeads, p.headSize);
export const valueShape = (p: Problem) => inLayout(p, p.keyLength, p.keyHeads, p.valueSize);
export const outputShape = (p: Problem) => inLayout(p, p.queryLength, p.queryHeads, p.valueSize);
/** [B,Hq,Nq] in either layout, as flash_attn's softmax_lse. */
export const lseShape = (p: Problem): [number, number, number] => [p.batch, p.queryHeads, p.queryLength];

function stridesOf(p: Problem, rows: number, heads: number, size: number): Strides {
  return p.layout === 'bnhd' ? {batch: rows * heads * size, row: heads * size, head: size} :
                               {batch: rows * heads * size, row: size, head: rows * size};
}

export const queryStrides = (p: Problem) => stridesOf(p, p.queryLength, p.queryHeads, p.headSize);
export const keyStrides = (p: Problem) => stridesOf(p, p.keyLength, p.keyHeads, p.headSize);
export const valueStrides = (p: Problem) => stridesOf(p, p.keyLength, p.keyHeads, p.valueSize);
export const outputStrides = (p: Problem) => stridesOf(p, p.queryLength, p.queryHeads, p.valueSize);

/** Strides of the mask along [B,Hq,Nq,Nk], 0 along a broadcast axis; all 0 without a mask. */
export function maskStrides(p: Problem): [number, number, number, number] {
  if (!p.maskShape) {
    return [0, 0, 0, 0];
  }
  const [b, h, i, j] = p.maskShape;
  return [b === 1 ? 0 : h * i * j, h === 1 ? 0 : i * j, i === 1 ? 0 : j, j === 1 ? 0 : 1];
}

/** Key j is seen by query i under `causal` when j ≤ i + causalOffset. */
export function causalOffset(p: Problem): number {
  return p.causalAlignment === 'bottom-right' ? p.keyLength - p.queryLength : 0;
}

/** True when there is nothing to attend: an axis of the scores is empty. */
export function isEmpty(p: Problem): boolean {
  return p.batch * p.queryHeads * p.queryLength * p.keyLength === 0;
}
