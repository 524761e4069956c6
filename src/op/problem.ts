import type {TensorInfo} from '@tensorflow/tfjs-core';

import {invalid} from './options.js';
import type {ResolvedOptions} from './options.js';

/** Largest D and Dv that the kernels are built for (flash_attn's bound). */
export const MAX_HEAD_SIZE = 256;

export type Shape4 = readonly [number, number, number, number];

/** Which of q, k and v lie side by side in one tensor: `qkv` [B,N,3,H,D] or `kv` [B,N,2,Hkv,D]. */
export type Packing = 'none'|'qkv'|'kv';

/** What a call's options say about its tensors, beyond their shapes. Plain data: part of a kernel's attributes. */
export interface CallOptions extends ResolvedOptions {
  /** Layout `thd`: where each sequence starts in the rows of q and of k, and where the last one ends; [B+1] each. */
  readonly queryOffsets?: readonly number[];
  readonly keyOffsets?: readonly number[];
  /** k and v are a cache: their batches are picked by `sequences`, or are pages picked by `blockTable`. */
  readonly cache?: boolean;
  /** Parts that the keys are split into, to be merged by LSE. Default: as the backend sees fit. */
  readonly splits?: number;
}

/** The tensors of a call by name, as far as their shapes tell. */
export interface Shapes {
  readonly q?: Shaped;
  readonly k?: Shaped;
  readonly v?: Shaped;
  readonly qkv?: Shaped;
  readonly kv?: Shaped;
  /** Rank 4 already, as is the bias. */
  readonly mask?: Shaped;
  readonly bias?: Shaped;
  readonly alibiSlopes?: Shaped;
  readonly sinks?: Shaped;
  readonly sequences?: Shaped;
  readonly blockTable?: Shaped;
}

type Shaped = Pick<TensorInfo, 'shape'>;

/**
 * What a call of the op computes: validated, immutable, without tensors and without the seed of dropout, which is new
 * with every call. Every backend's kernel and plan derives from it. A query head h reads key/value head
 * ⌊h·keyHeads/queryHeads⌋.
 */
export interface Problem extends Omit<CallOptions, 'seed'> {
  readonly batch: number;
  /** Nq and Nk; the longest of all sequences with layout `thd`. */
  readonly queryLength: number;
  readonly keyLength: number;
  /** Rows of the tensors along the length: as the lengths, but all sequences' with `thd` and a page's with pages. */
  readonly queryRows: number;
  readonly keyRows: number;
  readonly queryHeads: number;
  readonly keyHeads: number;
  /** D: size of a query and a key. */
  readonly headSize: number;
  /** Dv: size of a value and of an output. */
  readonly valueSize: number;
  readonly packing: Packing;
  /** Batches of k and v: B, or those of a cache, or its pages. */
  readonly keyBatches: number;
  /** Keys of a page of the cache; 0 without pages. */
  readonly pageSize: number;
  /** The mask's own four axes before broadcasting, each 1 or as in [B,Hq,Nq,Nk]; absent without a mask. */
  readonly maskShape?: Shape4;
  /** The same of the bias. */
  readonly biasShape?: Shape4;
  /** Whether there are ALiBi slopes, and whether each batch has its own. */
  readonly alibi: 'none'|'head'|'batch';
  readonly hasSinks: boolean;
  /** Whether sequences have lengths (and places) of their own: an int32 tensor [B,5], see src/op/sequences. */
  readonly hasSequences: boolean;
}

/** Distance in elements between neighbours along each axis of a tensor, whatever its layout, and where it begins. */
export interface Strides {
  readonly base: number;
  readonly batch: number;
  readonly row: number;
  readonly head: number;
}

interface Axes {
  readonly batch: number;
  readonly rows: number;
  readonly heads: number;
  readonly size: number;
}

/** Axes of one of q, k and v; of a packed tensor without the axis that counts its parts. */
function axesOf(shape: readonly number[], layout: ResolvedOptions['layout']): Axes {
  const [heads, size] = shape.slice(-2);
  switch (layout) {
    case 'bnhd':
      return {batch: shape[0], rows: shape[1], heads, size};
    case 'bhnd':
      return {batch: shape[0], rows: shape[2], heads: shape[1], size};
    case 'thd':
      return {batch: 1, rows: shape[0], heads, size};
  }
}

function checkHeads(query: Axes, key: Axes, value: Axes, shapes: Shapes, names: Record<'q'|'k'|'v', keyof Shapes>,
                    {layout, cache}: CallOptions) {
  const of = (name: 'q'|'k'|'v') =>
      [cache && name !== 'q' ? `${name}Cache` : names[name], shapes[names[name]]!.shape] as const;
  if (query.size < 1 || query.size > MAX_HEAD_SIZE) {
    throw invalid(`a head size from 1 to ${MAX_HEAD_SIZE} (last axis)`, ...of('q'));
  }
  if (key.size !== query.size) {
    throw invalid(`the head size of q, ${query.size} (last axis)`, ...of('k'));
  }
  if (value.size < 1 || value.size > MAX_HEAD_SIZE) {
    throw invalid(`a head size from 1 to ${MAX_HEAD_SIZE} (last axis)`, ...of('v'));
  }
  const batches = cache ? key.batch : query.batch;
  if (key.batch !== batches) {
    throw invalid(`the batch size of q, ${batches}`, ...of('k'));
  }
  if (value.batch !== batches) {
    throw invalid(cache ? `the first axis of k, ${batches}` : `the batch size of q, ${batches}`, ...of('v'));
  }
  if (value.rows !== key.rows) {
    throw invalid(`the length of k, ${key.rows} (layout '${layout}')`, ...of('v'));
  }
  if (value.heads !== key.heads) {
    throw invalid(`the number of heads of k, ${key.heads} (layout '${layout}')`, ...of('v'));
  }
  if (key.heads < 1 || query.heads % key.heads !== 0) {
    throw invalid(`a number of heads that divides the ${query.heads} of q (layout '${layout}')`, ...of('k'));
  }
}

const longest = (offsets: readonly number[]): number =>
    offsets.slice(1).reduce((most, end, b) => Math.max(most, end - offsets[b]), 0);

/** Checks that the shapes belong together and gives the Problem. */
export function makeProblem(shapes: Shapes, options: CallOptions): Problem {
  const {layout, queryOffsets, keyOffsets} = options;
  const packing: Packing = shapes.qkv ? 'qkv' : shapes.kv ? 'kv' : 'none';
  const names = {
    q: packing === 'qkv' ? 'qkv' : 'q',
    k: packing === 'none' ? 'k' : packing,
    v: packing === 'none' ? 'v' : packing,
  } as const;
  const [query, key, value] =
      [names.q, names.k, names.v].map(name => axesOf(shapes[name]!.shape, layout));
  checkHeads(query, key, value, shapes, names, options);
  const batch = queryOffsets ? queryOffsets.length - 1 : query.batch;
  const {blockTable} = shapes;
  const problem: Problem = {
    layout, queryOffsets, keyOffsets, packing, batch,
    causalAlignment: options.causalAlignment,
    windowLeft: options.windowLeft,
    windowRight: options.windowRight,
    softmaxScale: options.softmaxScale,
    softcap: options.softcap,
    dropoutP: options.dropoutP,
    computeType: options.computeType,
    deterministic: options.deterministic,
    cache: options.cache,
    splits: options.splits,
    queryLength: queryOffsets ? longest(queryOffsets) : query.rows,
    keyLength: keyOffsets ? longest(keyOffsets) : blockTable ? blockTable.shape[1] * key.rows : key.rows,
    queryRows: query.rows,
    keyRows: key.rows,
    queryHeads: query.heads,
    keyHeads: key.heads,
    headSize: query.size,
    valueSize: value.size,
    keyBatches: key.batch,
    pageSize: blockTable ? key.rows : 0,
    alibi: 'none',
    hasSinks: shapes.sinks !== undefined,
    hasSequences: shapes.sequences !== undefined,
  };
  return {
    ...problem,
    maskShape: broadcastShape(problem, shapes.mask, 'mask'),
    biasShape: broadcastShape(problem, shapes.bias, 'bias'),
    alibi: alibiOf(problem, shapes.alibiSlopes),
    hasSinks: checkSinks(problem, shapes.sinks),
  };
}

/** Whether the same problem may well come again: offsets of sequences end to end differ from call to call. */
export const isLasting = ({queryOffsets}: Pick<CallOptions, 'queryOffsets'>): boolean => queryOffsets === undefined;

/** What tells one lasting problem from another. */
type KeyOptions = Omit<CallOptions, 'seed'|'queryOffsets'|'keyOffsets'>;

interface KnownProblem {
  readonly shapes: Shapes;
  readonly options: KeyOptions;
  readonly problem: Problem;
}

/** Those used last come first: the first is nearly always the one. */
const known: KnownProblem[] = [];

/** A model has a few problems; one that generates text without a cache has a new one for each length. */
const MOST_PROBLEMS = 256;

const sameShape = (a: Shaped|undefined, b: Shaped|undefined): boolean => !a || !b ?
    a === b :
    a.shape.length === b.shape.length && a.shape.every((n, axis) => n === b.shape[axis]);

/** All that can differ; the types have it complete. By name: a loop over names that objects may lack is slow. */
const SHAPES: ReadonlyArray<(of: Shapes) => Shaped|undefined> = Object.values({
  q: of => of.q, k: of => of.k, v: of => of.v, qkv: of => of.qkv, kv: of => of.kv, mask: of => of.mask,
  bias: of => of.bias, alibiSlopes: of => of.alibiSlopes, sinks: of => of.sinks, sequences: of => of.sequences,
  blockTable: of => of.blockTable,
} satisfies {[name in keyof Required<Shapes>]: (of: Shapes) => Shapes[name]});
const OPTIONS: ReadonlyArray<(of: KeyOptions) => unknown> = Object.values({
  layout: of => of.layout, causalAlignment: of => of.causalAlignment, windowLeft: of => of.windowLeft,
  windowRight: of => of.windowRight, softmaxScale: of => of.softmaxScale, softcap: of => of.softcap,
  dropoutP: of => of.dropoutP, computeType: of => of.computeType, deterministic: of => of.deterministic,
  cache: of => of.cache, splits: of => of.splits,
} satisfies {[name in keyof Required<KeyOptions>]: (of: KeyOptions) => KeyOptions[name]});

const isFor = ({shapes, options}: KnownProblem, otherShapes: Shapes, otherOptions: KeyOptions): boolean =>
    SHAPES.every(get => sameShape(get(shapes), get(otherShapes))) &&
    OPTIONS.every(get => get(options) === get(otherOptions));

/** Shapes without the tensors that have them. */
const shapesAlone = (shapes: Shapes): Shapes => Object.fromEntries(
    Object.entries(shapes).map(([name, tensor]) => [name, tensor && {shape: [...(tensor as Shaped).shape]}]));

/**
 * As {@link makeProblem}, but the same object for the same shapes and options where {@link isLasting}: backends keep
 * what they have worked out by its identity.
 */
export function problemOf(shapes: Shapes, options: CallOptions): Problem {
  if (!isLasting(options)) {
    return makeProblem(shapes, options);
  }
  let at = 0;
  while (at < known.length && !isFor(known[at], shapes, options)) {
    at++;
  }
  if (at > 0 || known.length === 0) {
    const found = known[at] as KnownProblem|undefined ??
        {shapes: shapesAlone(shapes), options: {...options}, problem: makeProblem(shapes, options)};
    known.splice(at, 1);
    known.unshift(found);
    known.splice(MOST_PROBLEMS);
  }
  return known[0].problem;
}

function broadcastShape(problem: Problem, tensor: Shaped|undefined, name: string): Shape4|undefined {
  if (tensor === undefined) {
    return undefined;
  }
  const full = scoreShape(problem);
  if (tensor.shape.length !== 4 || tensor.shape.some((n, axis) => n !== 1 && n !== full[axis])) {
    throw invalid(`a shape that broadcasts to [B,Hq,Nq,Nk] = [${full}]`, name, tensor.shape);
  }
  return tensor.shape as [number, number, number, number];
}

function alibiOf({batch, queryHeads}: Problem, slopes: Shaped|undefined): Problem['alibi'] {
  if (slopes === undefined) {
    return 'none';
  }
  const {shape} = slopes;
  if (shape[shape.length - 1] !== queryHeads || shape.length === 2 && shape[0] !== batch || shape.length > 2) {
    throw invalid(`shape [Hq] = [${queryHeads}] or [B,Hq] = [${batch},${queryHeads}]`, 'alibiSlopes', shape);
  }
  return shape.length === 2 ? 'batch' : 'head';
}

function checkSinks({queryHeads}: Problem, sinks: Shaped|undefined): boolean {
  if (sinks !== undefined && (sinks.shape.length !== 1 || sinks.shape[0] !== queryHeads)) {
    throw invalid(`shape [Hq] = [${queryHeads}]`, 'sinks', sinks.shape);
  }
  return sinks !== undefined;
}

/** [B,Hq,Nq,Nk]. Nothing of this shape is ever allocated. */
export function scoreShape(p: Problem): [number, number, number, number] {
  return [p.batch, p.queryHeads, p.queryLength, p.keyLength];
}

/** Tensors that lie in rows of heads; a gradient lies as what it is the gradient of. */
export type RowTensor = 'q'|'k'|'v'|'output';

function rowsOf(p: Problem, name: RowTensor): Axes {
  const isKey = name === 'k' || name === 'v';
  return {
    batch: isKey ? p.keyBatches : p.batch,
    rows: isKey ? p.keyRows : p.queryRows,
    heads: isKey ? p.keyHeads : p.queryHeads,
    size: name === 'q' || name === 'k' ? p.headSize : p.valueSize,
  };
}

/** Shape of one of q, k and v that is not packed, or of the output. */
export function rowShape(p: Problem, name: RowTensor): number[] {
  const {batch, rows, heads, size} = rowsOf(p, name);
  switch (p.layout) {
    case 'bnhd':
      return [batch, rows, heads, size];
    case 'bhnd':
      return [batch, heads, rows, size];
    case 'thd':
      return [rows, heads, size];
  }
}

/** Parts of the packed tensor that a tensor lies in, and which of them it is. */
function packedPart({packing}: Problem, name: RowTensor): {parts: number, part: number} {
  if (packing === 'qkv' && name !== 'output') {
    return {parts: 3, part: ['q', 'k', 'v'].indexOf(name)};
  }
  if (packing === 'kv' && (name === 'k' || name === 'v')) {
    return {parts: 2, part: ['k', 'v'].indexOf(name)};
  }
  return {parts: 1, part: 0};
}

/** Where the elements of q, k, v or the output lie in the tensor that holds them, packed or not. */
export function rowStrides(p: Problem, name: RowTensor): Strides {
  const {rows, heads, size} = rowsOf(p, name);
  if (p.layout === 'bhnd') {
    return {base: 0, batch: rows * heads * size, row: size, head: rows * size};
  }
  const {parts, part} = packedPart(p, name);
  const row = parts * heads * size;
  return {base: part * heads * size, batch: p.layout === 'thd' ? 0 : rows * row, row, head: size};
}

/** [B,Hq,Nq] in either layout, as flash_attn's softmax_lse; [Hq, total length] with `thd`. */
export function lseShape(p: Problem): number[] {
  return p.layout === 'thd' ? [p.queryHeads, p.queryRows] : [p.batch, p.queryHeads, p.queryLength];
}

export function lseStrides(p: Problem): Strides {
  const batch = p.layout === 'thd' ? 0 : p.queryHeads * p.queryRows;
  return {base: 0, batch, head: p.queryRows, row: 1};
}

/** Strides of a mask or bias along [B,Hq,Nq,Nk], 0 along a broadcast axis; all 0 where there is none. */
export function broadcastStrides(shape: Shape4|undefined): [number, number, number, number] {
  if (!shape) {
    return [0, 0, 0, 0];
  }
  const [b, h, i, j] = shape;
  return [b === 1 ? 0 : h * i * j, h === 1 ? 0 : i * j, i === 1 ? 0 : j, j === 1 ? 0 : 1];
}

/**
 * What the gradient kernels give for the bias, which `op/gradient` then sums to the bias's own shape. With both lengths
 * it is that shape. A bias that is broadcast along a length has a gradient for each batch and head, since so many work
 * at once; one broadcast along both lengths has one for each query too.
 */
export function biasGradientShape(p: Problem): [number, number, number, number] {
  const [, , i, j] = p.biasShape!;
  if (i === p.queryLength && j === p.keyLength) {
    return [...p.biasShape!];
  }
  return [p.batch, p.queryHeads, j === p.keyLength ? 1 : p.queryLength, j === p.keyLength ? j : 1];
}

/** Diagonal of a sequence: under `causal` key j is seen by query i when j ≤ i + offset. Lengths are the sequence's. */
export function diagonalOffset(
    {causalAlignment}: Pick<Problem, 'causalAlignment'>, queryLength: number, keyLength: number): number {
  return causalAlignment === 'bottom-right' ? keyLength - queryLength : 0;
}

/** True when there is nothing to attend: an axis of the scores is empty. */
export function isEmpty(p: Problem): boolean {
  return p.batch * p.queryHeads * p.queryLength * p.keyLength === 0;
}
