import {Tensor} from '@tensorflow/tfjs-core';
import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD} from './kernels.js';
import type {
  AppendAttrs, AttentionAttrs, AttentionInputName, GradAttrs, PlannedKernel, WantedGradient,
} from './kernels.js';
import {ATTENTION_OPTIONS, checkOptionNames, COMMON_OPTIONS, invalid, layoutOf, resolveOptions} from './options.js';
import type {FlashAttentionOptions} from './options.js';
import {lseShape, makeProblem, rowShape} from './problem.js';
import type {CallOptions, Problem} from './problem.js';
import {SEQUENCE_FIELDS} from './sequences.js';

/** A tensor's shape, or a tensor that has it. */
export type ShapeOf = Tensor|readonly number[];

/**
 * The tensors of a call by the names of its arguments: q, k and v; `qkv`, or q and `kv`, where they are packed; q,
 * `kCache` and `vCache`, and k and v where new rows are appended, over a cache.
 */
export interface CallShapes {
  readonly q?: ShapeOf;
  readonly k?: ShapeOf;
  readonly v?: ShapeOf;
  readonly qkv?: ShapeOf;
  readonly kv?: ShapeOf;
  readonly kCache?: ShapeOf;
  readonly vCache?: ShapeOf;
}

type TensorOption = 'mask'|'bias'|'alibiSlopes'|'sinks'|'queryLengths'|'keyLengths';

/** Options of a call, with a shape in the place of every tensor. */
export interface CallShapeOptions extends Omit<FlashAttentionOptions, TensorOption> {
  readonly mask?: ShapeOf;
  readonly bias?: ShapeOf;
  readonly alibiSlopes?: ShapeOf;
  readonly sinks?: ShapeOf;
  readonly queryLengths?: ShapeOf;
  readonly keyLengths?: ShapeOf;
  /** Sequences end to end, [B+1]: the numbers themselves, since they decide how the work is laid out. */
  readonly cuSeqlensQ?: readonly number[];
  readonly cuSeqlensK?: readonly number[];
  /** Over a cache, as in `flashAttentionWithKvCache`. */
  readonly blockTable?: ShapeOf;
  readonly numSplits?: number;
}

const FORMS: ReadonlyArray<ReadonlyArray<keyof CallShapes>> =
    [['q', 'k', 'v'], ['qkv'], ['q', 'kv'], ['q', 'kCache', 'vCache'], ['q', 'kCache', 'vCache', 'k', 'v']];

/** Letters of each argument's axes, as in the documentation of the functions. */
const LETTERS: Record<keyof CallShapes, string> = {
  q: '[B,Nq,Hq,D]', k: '[B,Nk,Hkv,D]', v: '[B,Nk,Hkv,Dv]', qkv: '[B,N,3,H,D]', kv: '[B,Nk,2,Hkv,D]',
  kCache: '[Bc,capacity,Hkv,D]', vCache: '[Bc,capacity,Hkv,Dv]',
};

const info = (shape: readonly number[], dtype: DataType = 'float32'): TensorInfo =>
    ({dataId: {}, shape: [...shape], dtype});

function shapeOf(value: unknown, name: string): readonly number[] {
  const shape: unknown = value instanceof Tensor ? value.shape : value;
  if (!Array.isArray(shape) || !shape.every(n => Number.isSafeInteger(n) && n >= 0)) {
    throw invalid('a shape (an array of integers of at least 0), or a tensor that has it,', name, value);
  }
  return shape;
}

function formOf(shapes: CallShapes): ReadonlyArray<keyof CallShapes> {
  checkOptionNames(shapes, Object.keys(LETTERS));
  const given = Object.keys(shapes).filter(name => shapes[name as keyof CallShapes] !== undefined);
  const form = FORMS.find(names => names.length === given.length && names.every(name => given.includes(name)));
  if (!form) {
    throw invalid('shapes of ' + FORMS.map(names => names.join(', ')).join(', or '), 'the tensors of a call', shapes);
  }
  return form;
}

/** Shapes of the arguments, their ranks checked. Sequences end to end have no axis of batches. */
function argumentShapes(
    shapes: CallShapes, form: ReadonlyArray<keyof CallShapes>, isEndToEnd: boolean):
    {[name in keyof CallShapes]: readonly number[]} {
  return Object.fromEntries(form.map(name => {
    const shape = shapeOf(shapes[name], name);
    const rank = LETTERS[name].split(',').length - (isEndToEnd ? 1 : 0);
    if (shape.length !== rank) {
      throw invalid(`a shape of rank ${rank}${isEndToEnd ? '' : `, ${LETTERS[name]}`}`, name, shape);
    }
    return [name, shape];
  }));
}

function offsetsOf(value: unknown, name: string): readonly number[] {
  if (!Array.isArray(value) || value.length < 2 ||
      !value.every((n, i) => Number.isSafeInteger(n) && n >= (i === 0 ? 0 : value[i - 1]))) {
    throw invalid('an array of at least 2 integers that never decrease, [B+1]', name, value);
  }
  return value;
}

const toRank4 = (shape: readonly number[]): number[] => [...new Array<number>(4 - shape.length).fill(1), ...shape];

/** The forward kernel's inputs and attributes, and the Problem that they make. */
function plannedForward(shapes: CallShapes, options: CallShapeOptions) {
  const form = formOf(shapes);
  const overCache = form.includes('kCache');
  const isEndToEnd = options.cuSeqlensQ !== undefined || options.cuSeqlensK !== undefined;
  const isPacked = form.includes('qkv') || form.includes('kv');
  checkOptionNames(options, [
    ...(isEndToEnd || overCache ? COMMON_OPTIONS : ATTENTION_OPTIONS).filter(name => !isPacked || name !== 'layout'),
    ...isEndToEnd ? ['cuSeqlensQ', 'cuSeqlensK'] : [],
    ...overCache ? ['blockTable', 'numSplits'] : [],
  ]);
  const args = argumentShapes(shapes, form, isEndToEnd);
  const rows = (args.q ?? args.qkv)!;
  const layout = isEndToEnd ? 'thd' : layoutOf(options.layout);
  const call: CallOptions = {
    ...resolveOptions(options as FlashAttentionOptions, layout, rows[rows.length - 1], () => 0),
    ...isEndToEnd && {
      queryOffsets: offsetsOf(options.cuSeqlensQ, 'cuSeqlensQ'),
      keyOffsets: offsetsOf(options.cuSeqlensK ?? options.cuSeqlensQ, 'cuSeqlensK'),
    },
    ...overCache && {cache: true, splits: options.numSplits || undefined},
  };
  const batch = call.queryOffsets ? call.queryOffsets.length - 1 : rows[0];
  const named: {[name in AttentionInputName]?: TensorInfo} = {};
  for (const name of form) {
    if (!(overCache && (name === 'k' || name === 'v'))) {
      named[name === 'kCache' ? 'k' : name === 'vCache' ? 'v' : name] = info(args[name]!);
    }
  }
  for (const name of ['mask', 'bias'] as const) {
    if (options[name] !== undefined) {
      const shape = shapeOf(options[name], name);
      named[name] = info(shape.length > 4 ? shape : toRank4(shape), name === 'mask' ? 'bool' : 'float32');
    }
  }
  for (const name of ['alibiSlopes', 'sinks'] as const) {
    if (options[name] !== undefined) {
      named[name] = info(shapeOf(options[name], name));
    }
  }
  if (isEndToEnd || overCache || options.queryLengths !== undefined || options.keyLengths !== undefined) {
    named.sequences = info([batch, SEQUENCE_FIELDS], 'int32');
  }
  if (options.blockTable !== undefined) {
    named.blockTable = info(shapeOf(options.blockTable, 'blockTable'), 'int32');
  }
  const problem = makeProblem(named, call);
  const attrs: AttentionAttrs = {...call, inputNames: Object.keys(named) as AttentionInputName[]};
  return {args, named, problem, attrs, inputs: Object.values(named)};
}

function plannedGradient(
    wanted: readonly WantedGradient[], hasLseGradient: boolean,
    {attrs, inputs, problem}: ReturnType<typeof plannedForward>): PlannedKernel {
  const [rows, lse] = [rowShape(problem, 'output'), lseShape(problem)];
  const more = {output: rows, lse, lseTail: lse, dOutput: rows, ...hasLseGradient && {dLse: lse}};
  const names = [...attrs.inputNames, ...Object.keys(more) as Array<keyof typeof more>];
  return {
    name: FLASH_ATTENTION_GRAD,
    inputs: [...inputs, ...Object.values(more).map(shape => info(shape))],
    attrs: {...attrs, inputNames: names, wanted} satisfies GradAttrs,
  };
}

function plannedAppend({args: {k, v}, named}: ReturnType<typeof plannedForward>): PlannedKernel {
  const inputs = {newK: info(k!), newV: info(v!), k: named.k!, v: named.v!, sequences: named.sequences!};
  const all = {...inputs, ...named.blockTable && {blockTable: named.blockTable}};
  return {
    name: FLASH_ATTENTION_CACHE_APPEND,
    inputs: Object.values(all),
    attrs: {inputNames: Object.keys(all) as Array<keyof typeof all>, inPlace: false} satisfies AppendAttrs,
  };
}

/** Which gradients a call is asked for: all that its tensors have, or some. */
export type Gradients = boolean|readonly WantedGradient[];

function wantedOf(gradients: Gradients, inputNames: readonly AttentionInputName[]): readonly WantedGradient[] {
  const possible = (['q', 'k', 'v', 'qkv', 'kv', 'bias'] as const).filter(name => inputNames.includes(name));
  if (typeof gradients === 'boolean') {
    return gradients ? possible : [];
  }
  if (!Array.isArray(gradients) || !gradients.every(name => possible.includes(name))) {
    throw invalid(`a boolean, or some of ${possible.join(', ')},`, 'gradients', gradients);
  }
  return possible.filter(name => gradients.includes(name));
}

/**
 * The kernels that a call would run, in order. Pure.
 * @param lseGradient whether the LSE has a gradient too, beside that of the output.
 * @throws as the call would.
 */
export function plannedCall(
    shapes: CallShapes, options: CallShapeOptions, gradients: Gradients,
    lseGradient = false): {problem: Problem, kernels: PlannedKernel[]} {
  const plain = plannedForward(shapes, options);
  const wanted = wantedOf(gradients, plain.attrs.inputNames);
  const forGradient = wanted.length > 0;
  const forward = {...plain, attrs: {...plain.attrs, forGradient}};
  if (wanted.length > 0 && forward.attrs.cache) {
    throw invalid('false over a cache, which has none,', 'gradients', gradients);
  }
  if (typeof lseGradient !== 'boolean' || lseGradient && wanted.length === 0) {
    throw invalid('a boolean, true only beside gradients,', 'lseGradient', lseGradient);
  }
  return {
    problem: forward.problem,
    kernels: [
      ...forward.args.kCache && forward.args.k ? [plannedAppend(forward)] : [],
      {name: FLASH_ATTENTION, inputs: forward.inputs, attrs: forward.attrs},
      ...forGradient ? [plannedGradient(wanted, lseGradient, forward)] : [],
    ],
  };
}
