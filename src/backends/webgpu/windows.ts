import {keyStrides, lseShape, maskStrides, outputStrides, queryStrides, valueStrides} from '../../op/problem.js';
import type {Problem, Strides} from '../../op/problem.js';

import type {DeviceLimits, KernelName} from './plan.js';

/**
 * A part of a problem that one dispatch works on: ranges of batches, query heads, queries and keys. It is the whole
 * problem unless a tensor is larger than what the device can bind at once.
 */
export interface Window {
  readonly batchFirst: number;
  readonly batches: number;
  readonly headFirst: number;
  readonly heads: number;
  readonly queryFirst: number;
  readonly queries: number;
  readonly keyFirst: number;
  readonly keys: number;
}

/** A tensor as a kernel binds it. */
export interface Operand {
  readonly name: OperandName;
  readonly strides: Strides;
  /** Elements from the row's start to its end. */
  readonly size: number;
  readonly bytes: number;
  readonly rows: 'queries'|'keys';
  /** Which heads it is indexed by. */
  readonly heads: 'query'|'key';
  /** Only the mask: the distance between keys. */
  readonly keyStride: number;
}

export type OperandName = 'q'|'k'|'v'|'output'|'rows'|'statistics'|'mask';

/** The bytes of an operand's buffer that a window touches, and where in them the window's first element lies. */
export interface Range {
  readonly offset: number;
  readonly size: number;
  /** In elements, from `offset`. */
  readonly base: number;
}

export function operand(problem: Problem, name: OperandName): Operand {
  const perQuery = {name, bytes: 4, rows: 'queries', heads: 'query', keyStride: 0} as const;
  const perKey = {name, bytes: 4, rows: 'keys', heads: 'key', keyStride: 0} as const;
  switch (name) {
    case 'q':
      return {...perQuery, strides: queryStrides(problem), size: problem.headSize};
    case 'k':
      return {...perKey, strides: keyStrides(problem), size: problem.headSize};
    case 'v':
      return {...perKey, strides: valueStrides(problem), size: problem.valueSize};
    case 'output':
      return {...perQuery, strides: outputStrides(problem), size: problem.valueSize};
    case 'rows':
    case 'statistics': {
      const [, heads, length] = lseShape(problem);
      const strides = {batch: heads * length, head: length, row: 1};
      return {...perQuery, strides, size: 1, bytes: name === 'rows' ? 4 : 16};
    }
    case 'mask': {
      const [batch, head, row, key] = maskStrides(problem);
      return {...perQuery, strides: {batch, head, row}, size: 1, keyStride: key};
    }
  }
}

/** The operands that each kernel binds. */
export function operandsOf(kernel: KernelName, problem: Problem): Operand[] {
  const mask: OperandName[] = problem.maskShape ? ['mask'] : [];
  const names: Record<KernelName, OperandName[]> = {
    forward: ['q', 'k', 'v', 'output', 'rows', ...mask],
    row_statistics: ['output', 'rows', 'statistics'],
    backward_dq: ['q', 'k', 'v', 'output', 'statistics', ...mask],
    backward_dkv: ['q', 'k', 'v', 'output', 'statistics', ...mask],
  };
  return names[kernel].map(name => operand(problem, name));
}

export function rangeOf({strides, size, bytes, rows, heads, keyStride}: Operand, problem: Problem, window: Window,
                        limits: DeviceLimits): Range {
  const group = problem.queryHeads / problem.keyHeads;
  const rowFirst = rows === 'queries' ? window.queryFirst : window.keyFirst;
  const rowCount = rows === 'queries' ? window.queries : window.keys;
  const lastHead = window.headFirst + window.heads - 1;
  const headFirst = heads === 'query' ? window.headFirst : Math.floor(window.headFirst / group);
  const headLast = heads === 'query' ? lastHead : Math.floor(lastHead / group);
  const first = window.batchFirst * strides.batch + rowFirst * strides.row + headFirst * strides.head +
      window.keyFirst * keyStride;
  const end = (window.batchFirst + window.batches - 1) * strides.batch + (rowFirst + rowCount - 1) * strides.row +
      headLast * strides.head + (window.keyFirst + window.keys - 1) * keyStride + size;
  const alignment = limits.minStorageBufferOffsetAlignment;
  const offset = Math.floor(first * bytes / alignment) * alignment;
  return {offset, size: end * bytes - offset, base: first - offset / bytes};
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

/**
 * Cuts a problem into windows whose operands all fit into `maxStorageBufferBindingSize`: by batches, then heads
 * (whole groups first), then queries or keys, halving what is too large. Windows that share a result come in order
 * of their keys (forward, dQ) and of their heads and queries (dK, dV), and add to it one after the other.
 */
export function makeWindows(kernel: KernelName, problem: Problem, limits: DeviceLimits): Window[] {
  const operands = operandsOf(kernel, problem);
  const group = problem.queryHeads / problem.keyHeads;

  const cut = (window: Window): Window[] => {
    const tooLarge = operands.find(
        o => rangeOf(o, problem, window, limits).size > limits.maxStorageBufferBindingSize);
    if (!tooLarge) {
      return [window];
    }
    const byRows = tooLarge.rows === 'queries' ? halve(window, 'queryFirst', 'queries', 1) :
                                                 // Dropout counts keys in blocks of four.
                                                 halve(window, 'keyFirst', 'keys', 4);
    // With heads innermost a range of heads touches nearly all bytes of its rows: cutting heads gains nothing.
    const headsApart = tooLarge.strides.head > tooLarge.strides.row;
    const byHeads = headsApart ?
        halve(window, 'headFirst', 'heads', group) ?? halve(window, 'headFirst', 'heads', 1) :
        undefined;
    const parts = halve(window, 'batchFirst', 'batches', 1) ?? byHeads ?? byRows ??
        (tooLarge.keyStride > 0 ? halve(window, 'keyFirst', 'keys', 4) : undefined);
    if (!parts) {
      throw new Error(
          `flashAttention: ${tooLarge.name} does not fit the WebGPU limit maxStorageBufferBindingSize ` +
          `(${limits.maxStorageBufferBindingSize} bytes) even one row at a time; ` +
          'use the layout \'bhnd\' or fewer heads');
    }
    return parts.flatMap(cut);
  };

  return cut({
    batchFirst: 0, batches: problem.batch, headFirst: 0, heads: problem.queryHeads,
    queryFirst: 0, queries: problem.queryLength, keyFirst: 0, keys: problem.keyLength,
  });
}

/** Query heads of a window that share a key head. */
export function headsPerKey(problem: Problem, window: Window): number {
  return Math.min(problem.queryHeads / problem.keyHeads, window.heads);
}

/** True when an earlier window already wrote the window's results, which this one must add to. */
export function resumes(kernel: KernelName, problem: Problem, window: Window): boolean {
  switch (kernel) {
    case 'row_statistics':
      return false;
    case 'backward_dkv':
      return window.queryFirst > 0 || window.headFirst % (problem.queryHeads / problem.keyHeads) > 0;
    default:
      return window.keyFirst > 0;
  }
}
