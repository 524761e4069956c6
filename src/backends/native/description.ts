import type {TensorInfo} from '@tensorflow/tfjs-core';

import type {GradInputName, WantedGradient} from '../../op/kernels.js';
import {philoxKey} from '../../op/philox.js';
import {broadcastStrides, lseShape, lseStrides, rowShape, rowStrides} from '../../op/problem.js';
import type {Problem, Strides} from '../../op/problem.js';

/** Of the array below; kernels/addon/description.h has the same number, and refuses another. */
export const DESCRIPTION_FORMAT = 3;

/** The tensors of a call in the order in which the addon takes them. Their places are the bits that name them. */
export const NATIVE_ORDER: readonly GradInputName[] = [
  'q', 'k', 'v', 'qkv', 'kv', 'mask', 'bias', 'alibiSlopes', 'sinks', 'sequences', 'blockTable',
  'output', 'lse', 'lseTail', 'dOutput', 'dLse',
];

export type CallKind = 'forward'|'backward'|'append';
const KINDS: readonly CallKind[] = ['forward', 'backward', 'append'];
/** As the addon numbers them. */
const COMPUTE_TYPES: ReadonlyArray<Problem['computeType']> = ['float32', 'tensorfloat32', 'float16', 'bfloat16'];

export interface NativeCall {
  readonly kind: CallKind;
  readonly problem: Problem;
  readonly seed: number;
  /** As the attributes of the kernel name them: packed tensors once. */
  readonly names: readonly GradInputName[];
  /** Pages of one sequence; 0 without pages. */
  readonly pagesPerSequence: number;
  readonly wanted?: readonly WantedGradient[];
}

const bits = (names: readonly GradInputName[]): number =>
    names.reduce((sum, name) => sum + 2 ** NATIVE_ORDER.indexOf(name), 0);

const all = ({base, batch, row, head}: Strides): number[] => [base, batch, row, head];

/** A shape filled up to `rank` axes by zeros, and before it how many there are. */
const withRank = (shape: readonly number[], rank: number): number[] =>
    [shape.length, ...shape, ...new Array<number>(rank - shape.length).fill(0)];

/** The names of a call's tensors, and of the gradients that it wants, as the addon orders them. */
export function inNativeOrder<Name extends GradInputName>(names: readonly Name[]): Name[] {
  return [...names].sort((a, b) => NATIVE_ORDER.indexOf(a) - NATIVE_ORDER.indexOf(b));
}

/** All that the addon has to know of a call besides the contents of its tensors. */
export function describeCall({kind, problem: p, seed, names, pagesPerSequence, wanted = []}: NativeCall): Float64Array {
  const lse = lseStrides(p);
  const numbers = [
    DESCRIPTION_FORMAT, KINDS.indexOf(kind), bits(names), bits(wanted),
    p.batch, p.queryLength, p.keyLength, p.queryRows, p.keyRows, p.queryHeads, p.keyHeads, p.headSize, p.valueSize,
    p.keyBatches, p.pageSize, pagesPerSequence, Number(p.layout === 'thd'), p.windowLeft, p.windowRight,
    Number(p.causalAlignment === 'bottom-right'), p.softmaxScale, p.softcap, p.dropoutP, ...philoxKey(seed),
    ...all(rowStrides(p, 'q')), ...all(rowStrides(p, 'k')), ...all(rowStrides(p, 'v')),
    ...all(rowStrides(p, 'output')), lse.batch, lse.head,
    ...broadcastStrides(p.maskShape), ...broadcastStrides(p.biasShape), ...p.biasShape ?? [1, 1, 1, 1],
    p.alibi === 'batch' ? p.queryHeads : 0,
    ...withRank(rowShape(p, 'output'), 4), ...withRank(lseShape(p), 3), Number(p.deterministic),
    COMPUTE_TYPES.indexOf(p.computeType),
  ];
  return Float64Array.from(numbers);
}

/** Columns of the block table, where there is one. */
export const pagesOf = (blockTable: TensorInfo|undefined): number => blockTable?.shape[1] ?? 0;
