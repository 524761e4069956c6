import {biasGradientShape, broadcastStrides, lseStrides, rowStrides} from '../../op/problem.js';
import type {Problem, Strides} from '../../op/problem.js';

import type {DeviceLimits} from './capabilities.js';
import type {KernelName} from './kernel_names.js';
import {MASK_GROUP, maskBitsShape, WORD_KEYS} from './mask_bits.js';
import {tableWords} from './plan.js';
import type {Extent} from './workgroups.js';

/**
 * A part of a problem that one dispatch works on: ranges of batches, query heads, queries and keys. It is the whole
 * problem unless a tensor is larger than what the device can bind at once.
 */
export interface Window extends Extent {
  readonly batchFirst: number;
  readonly headFirst: number;
  readonly queryFirst: number;
  readonly keyFirst: number;
}

/** A tensor as a kernel binds it. */
export interface Operand {
  readonly name: OperandName;
  readonly strides: Strides;
  /** Elements from the row's start to its end. */
  readonly size: number;
  readonly bytes: number;
  /** `all`: those of a head, whatever the window has of them. */
  readonly rows: 'queries'|'keys'|'all';
  /** Which heads it is indexed by. */
  readonly heads: 'query'|'key';
  /** Only the mask's tensor and bias: the distance between keys. */
  readonly keyStride: number;
  /** Bound with all that lies between its rows: other parts of a packed tensor, which share the binding. */
  readonly wholeRows: boolean;
  /** Batches that are picked by the shader (a cache): always bound all. */
  readonly allBatches?: number;
}

/** `mask` is the mask as bits (kernels/wgsl/mask.wgsl), `maskTensor` what they are made of. */
export type OperandName =
    'q'|'k'|'v'|'output'|'rows'|'statistics'|'mask'|'maskTensor'|'bias'|'biasGradient';

/** The bytes of an operand's buffer that a window touches, and where in them the window's first element lies. */
export interface Range {
  readonly offset: number;
  readonly size: number;
  /** In elements, from `offset`. Negative where rows count from the start of the whole tensor (layout `thd`). */
  readonly base: number;
}

export function operand(problem: Problem, name: OperandName): Operand {
  const common = {name, bytes: 4, keyStride: 0, wholeRows: false} as const;
  const perQuery = {...common, rows: 'queries', heads: 'query'} as const;
  const perKey = {
    ...common, rows: 'keys', heads: 'key', allBatches: problem.cache ? problem.keyBatches : undefined,
    wholeRows: problem.packing !== 'none',
  } as const;
  switch (name) {
    case 'q':
      return {
        ...perQuery, strides: rowStrides(problem, 'q'), size: problem.headSize, wholeRows: problem.packing === 'qkv',
      };
    case 'k':
      return {...perKey, strides: rowStrides(problem, 'k'), size: problem.headSize};
    case 'v':
      return {...perKey, strides: rowStrides(problem, 'v'), size: problem.valueSize};
    case 'output':
      return {...perQuery, strides: rowStrides(problem, 'output'), size: problem.valueSize};
    case 'rows':
    case 'statistics':
      return {...perQuery, strides: lseStrides(problem), size: 1, bytes: name === 'rows' ? 4 : 16};
    case 'mask': {
      const shape = problem.maskShape && maskBitsShape(problem.maskShape);
      const [batch, head] = broadcastStrides(shape);
      const row = shape && problem.maskShape[2] > 1 ? shape[3] : 0;
      return {...perQuery, rows: 'all', strides: {base: 0, batch, head, row}, size: shape ? shape[2] * shape[3] : 0};
    }
    case 'maskTensor': {
      const [, heads, rows, keys] = problem.maskShape ?? [0, 0, 0, 0];
      const strides = {base: 0, batch: heads * rows * keys, head: rows * keys, row: keys};
      return {...perQuery, strides, size: 1, keyStride: 1};
    }
    case 'bias':
    case 'biasGradient': {
      const shape = name === 'bias' ? problem.biasShape : problem.biasShape && biasGradientShape(problem);
      const [batch, head, row, key] = broadcastStrides(shape);
      return {...perQuery, strides: {base: 0, batch, head, row}, size: 1, keyStride: key};
    }
  }
}

/** The operands that each kernel binds. */
export function operandsOf(kernel: KernelName, problem: Problem): Operand[] {
  const pairs: OperandName[] = [
    ...problem.maskShape ? ['mask'] as const : [], ...problem.biasShape ? ['bias'] as const : [],
  ];
  const backward: OperandName[] = ['q', 'k', 'v', 'output', 'statistics', ...pairs];
  const names: Record<KernelName, OperandName[]> = {
    forward: ['q', 'k', 'v', 'output', 'rows', ...pairs],
    merge_splits: ['output', 'rows'],
    cache_append: ['q', 'k', 'v', 'output'],
    row_statistics: ['output', 'rows', 'statistics'],
    to_half: ['q', 'k', 'v', 'output', 'rows'],
    pack_mask: ['maskTensor', 'mask'],
    backward_dq: backward,
    backward_dkv: backward,
    backward_dbias: [...backward, 'biasGradient'],
  };
  return names[kernel].map(name => operand(problem, name));
}

/** The rows of a tensor that a window takes: [first, end), and whether the shader counts from `first`. */
function rowsIn(problem: Problem, window: Window, rows: Operand['rows']): [first: number, end: number] {
  if (rows === 'all') {
    return [0, 1];
  }
  const offsets = rows === 'queries' ? problem.queryOffsets : problem.keyOffsets;
  if (offsets) {
    return [offsets[window.batchFirst], offsets[window.batchFirst + window.batches]];
  }
  if (problem.pageSize > 0 && rows === 'keys') {
    return [0, problem.pageSize];
  }
  return rows === 'queries' ? [window.queryFirst, window.queryFirst + window.queries] :
                              [window.keyFirst, window.keyFirst + window.keys];
}

export function rangeOf(operand: Operand, problem: Problem, window: Window, limits: DeviceLimits): Range {
  const {strides, size, bytes, rows, heads, keyStride, wholeRows, allBatches} = operand;
  const group = problem.queryHeads / problem.keyHeads;
  const [rowFirst, rowEnd] = rowsIn(problem, window, rows);
  const lastHead = window.headFirst + window.heads - 1;
  const headFirst = heads === 'query' ? window.headFirst : Math.floor(window.headFirst / group);
  const headLast = heads === 'query' ? lastHead : Math.floor(lastHead / group);
  const batchFirst = allBatches === undefined ? window.batchFirst : 0;
  const batches = allBatches ?? window.batches;
  const rowsBegin = batchFirst * strides.batch + rowFirst * strides.row;
  const headsBegin = strides.base + headFirst * strides.head + window.keyFirst * keyStride;
  const lastRow = (batchFirst + batches - 1) * strides.batch + (Math.max(rowEnd, rowFirst + 1) - 1) * strides.row;
  const first = rowsBegin + (wholeRows ? 0 : headsBegin);
  const end = lastRow + (wholeRows ?
      strides.row :
      strides.base + headLast * strides.head + (window.keyFirst + window.keys - 1) * keyStride + size);
  const alignment = limits.minStorageBufferOffsetAlignment;
  const offset = Math.floor(first * bytes / alignment) * alignment;
  // Where sequences lie end to end the shader counts rows from the start of the tensor.
  const counted = problem.layout === 'thd' ? headsBegin : rowsBegin + headsBegin;
  return {offset, size: end * bytes - offset, base: counted - offset / bytes};
}

function halve(window: Window, first: 'batchFirst'|'headFirst'|'queryFirst'|'keyFirst',
               count: 'batches'|'heads'|'queries'|'keys', multiple: number): [Window, Window]|undefined {
  const half = Math.ceil(window[count] / 2 / multiple) * multiple;
  if (half >= window[count]) {
    return undefined;
  }
  return [
    {...window, [count]: half},
    {...window, [first]: window[first] + half, [count]: window[count] - half},
  ];
}

/** The window that is all of the problem; for pack_mask all of the mask. */
export function wholeWindow(kernel: KernelName, problem: Problem): Window {
  const first = {batchFirst: 0, headFirst: 0, queryFirst: 0, keyFirst: 0};
  if (kernel === 'pack_mask') {
    const [batches, heads, rows, keys] = problem.maskShape!;
    return {...first, batches, heads, queries: rows, keys};
  }
  return {
    ...first, batches: problem.batch, heads: problem.queryHeads, queries: problem.queryLength, keys: problem.keyLength,
  };
}


/**
 * Cuts a problem into windows whose operands all fit into `maxStorageBufferBindingSize`: by batches, then heads
 * (whole groups first), then queries or keys, halving what is too large. Windows that share a result come in order
 * of their keys (forward, dQ) and of their heads and queries (dK, dV), and add to it one after the other.
 */
export function makeWindows(kernel: KernelName, problem: Problem, limits: DeviceLimits): Window[] {
  const operands = operandsOf(kernel, problem);
  const group = problem.queryHeads / problem.keyHeads;
  // Rows of end-to-end sequences and of pages are found by the shader.
  const canCutRows = problem.layout !== 'thd' && problem.pageSize === 0;
  // Dropout counts keys in blocks of four.
  const [queriesMultiple, keysMultiple] = kernel === 'pack_mask' ? [MASK_GROUP, WORD_KEYS] : [1, 4];

  const cut = (window: Window): Window[] => {
    if (4 * tableWords(kernel, problem, window.batches) > limits.maxUniformBufferBindingSize) {
      const parts = halve(window, 'batchFirst', 'batches', 1);
      if (!parts) {
        throw new Error(
            `flashAttention: slopes, sinks and lengths of ${problem.queryHeads} heads do not fit the WebGPU limit ` +
            `maxUniformBufferBindingSize (${limits.maxUniformBufferBindingSize} bytes); use fewer heads`);
      }
      return parts.flatMap(cut);
    }
    const tooLarge = operands.find(
        o => rangeOf(o, problem, window, limits).size > limits.maxStorageBufferBindingSize);
    if (!tooLarge) {
      return [window];
    }
    const byRows = !canCutRows ? undefined :
        tooLarge.rows === 'queries' ? halve(window, 'queryFirst', 'queries', queriesMultiple) :
                                      halve(window, 'keyFirst', 'keys', keysMultiple);
    // With heads innermost a range of heads touches nearly all bytes of its rows: cutting heads gains nothing.
    const headsApart = tooLarge.strides.head > tooLarge.strides.row;
    const byHeads = headsApart ?
        halve(window, 'headFirst', 'heads', group) ?? halve(window, 'headFirst', 'heads', 1) :
        undefined;
    const byBatches = tooLarge.allBatches === undefined ? halve(window, 'batchFirst', 'batches', 1) : undefined;
    const parts = byBatches ?? byHeads ?? byRows ??
        (tooLarge.keyStride > 0 ? halve(window, 'keyFirst', 'keys', keysMultiple) : undefined);
    if (!parts) {
      throw new Error(
          `flashAttention: ${tooLarge.name} does not fit the WebGPU limit maxStorageBufferBindingSize ` +
          `(${limits.maxStorageBufferBindingSize} bytes) even one row at a time; ` +
          'use the layout \'bhnd\' or fewer heads');
    }
    return parts.flatMap(cut);
  };

  return cut(wholeWindow(kernel, problem));
}

/** Query heads of a window that share a key head. */
export function headsPerKey(problem: Problem, window: Window): number {
  return Math.min(problem.queryHeads / problem.keyHeads, window.heads);
}

/** True when an earlier window already wrote the window's results, which this one must add to. */
export function resumes(kernel: KernelName, problem: Problem, window: Window): boolean {
  switch (kernel) {
    case 'row_statistics':
    case 'merge_splits':
    case 'cache_append':
    case 'to_half':
    case 'pack_mask':
      return false;
    case 'backward_dkv':
      return window.queryFirst > 0 || window.headFirst % (problem.queryHeads / problem.keyHeads) > 0;
    case 'backward_dbias': {
      const [batch, head, row, key] = broadcastStrides(biasGradientShape(problem));
      return batch === 0 && window.batchFirst > 0 || head === 0 && window.headFirst > 0 ||
          row === 0 && window.queryFirst > 0 || key === 0 && window.keyFirst > 0;
    }
    default:
      return window.keyFirst > 0;
  }
}
