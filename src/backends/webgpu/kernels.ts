import {registerKernel, util} from '@tensorflow/tfjs-core';
import type {BackendValues, DataId, KernelConfig, KernelFunc, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {
  appendCall, FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD, FLASH_ATTENTION_PREPARE,
  FLASH_ATTENTION_TUNE, kernelCall,
} from '../../op/kernels.js';
import type {
  AppendAttrs, AttentionAttrs, AttentionInputName, GradAttrs, GradInputName, KernelCall, PrepareKernel, TuneKernel,
  WantedGradient,
} from '../../op/kernels.js';
import {biasGradientShape, isEmpty, lseShape, rowShape} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import type {Backend, ScratchBuffer} from './backend.js';
import {forcedPlan, isMatrixKind} from './choose.js';
import {limitsOf} from './device.js';
import {checkBackend} from './guarded_backend.js';
import {makeHalves, runWith} from './halves.js';
import type {Halves} from './halves.js';
import {maskBitsShape} from './mask_bits.js';
import {canStartFromLse, kindOf, splitOf, VARIANT} from './prepare.js';
import {prepareAhead} from './prepare_ahead.js';
import {filledTensor, newTensor, orNothing, run, SLOT} from './run.js';
import type {Binding, Call, Run} from './run.js';
import {withScratch} from './scratch.js';
import type {Scratch} from './scratch.js';
import {tuneKernels} from './tune.js';
import type {RunKernel} from './tune.js';
import type {OperandName} from './windows.js';

/** Records the packing of a mask into bits (kernels/wgsl/pack_mask.wgsl). */
function packMask(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>, mask: TensorInfo): ScratchBuffer {
  const bits = scratch.take('the mask as bits', [...maskBitsShape(call.problem.maskShape!)]);
  run(backend, call, {
    kernel: 'pack_mask',
    bindings: [
      {binding: SLOT.mask, tensor: bits, operand: 'mask'},
      {binding: SLOT.maskTensor, tensor: mask, operand: 'maskTensor'},
    ],
  });
  return bits;
}

/** What every kernel over tiles binds: q, k and v, dO in the backward pass, and what goes with pairs. */
function tileBindings(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>,
    withGradient: boolean): {operands: Binding[], pairs: Binding[]} {
  const {tensors, problem} = call;
  const {q, k, v, dOutput, mask, bias, blockTable} = tensors;
  const hasKeys = problem.keyRows > 0;
  const operands: Binding[] = [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    // Without keys there is nothing to bind, and nothing is read: q stands in.
    {binding: SLOT.k, ...hasKeys ? {tensor: k, operand: 'k'} : {tensor: q}},
    {binding: SLOT.v, ...hasKeys ? {tensor: v, operand: 'v'} : {tensor: q}},
  ];
  if (withGradient) {
    operands.push({binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'});
  }
  if (blockTable) {
    operands.push({binding: SLOT.blockTable, tensor: blockTable});
  }
  const pairs: Binding[] = [];
  if (mask) {
    pairs.push({
      binding: SLOT.mask,
      ...hasKeys ? {tensor: packMask(backend, scratch, call, mask), operand: 'mask'} : {tensor: q},
    });
  }
  if (bias) {
    pairs.push({binding: SLOT.bias, ...hasKeys ? {tensor: bias, operand: 'bias'} : {tensor: q}});
  }
  return {operands, pairs};
}

/** The results of a forward pass, or of each part of the keys of it. */
interface Results<Output, Rows = Output> {
  readonly output: Output;
  readonly lse: Rows;
  readonly lseTail: Rows;
}

type Make<T> = (name: string, shape: number[]) => T;

/** @param makeRows makes LSE and tail. */
function makeResults<Output, Rows = Output>(
    problem: Problem, make: Make<Output>, makeRows: Make<Rows>, parts: readonly number[] = []): Results<Output, Rows> {
  const of = parts.length > 0 ? ' of the split keys' : '';
  return {
    output: make(`the output${of}`, [...parts, ...rowShape(problem, 'output')]),
    lse: makeRows(`the LSE${of}`, [...parts, ...lseShape(problem)]),
    lseTail: makeRows(`the tail of the LSE${of}`, [...parts, ...lseShape(problem)]),
  };
}

/**
 * Into `results`, which may be scratch memory themselves.
 * @param plain without matrices, and the keys whole.
 */
function forward(
    backend: Backend, scratch: Scratch, call: KernelCall<AttentionInputName>, forGradient: boolean,
    results: Results<TensorInfo|ScratchBuffer>, plain = false): void {
  const {problem} = call;
  const bindResults = (
      {output, lse, lseTail}: typeof results, name: {output?: OperandName, rows?: OperandName}): Binding[] => [
    {binding: SLOT.result0, tensor: output, operand: name.output},
    {binding: 9, tensor: lse, operand: name.rows},
    {binding: 10, tensor: lseTail, operand: name.rows},
  ];
  const whole = {output: 'output', rows: 'rows'} as const;
  const {operands, pairs} = tileBindings(backend, scratch, call, false);
  const bindings = [...pairs, ...bindResults(results, whole)];
  if (plain) {
    run(backend, call, {kernel: 'forward', variants: VARIANT.plain, forGradient, operands, bindings});
    return;
  }
  const split = splitOf(backend.device, problem, forGradient);
  const {kind} = kindOf(backend.device, 'forward', problem, forGradient);
  const halves = isMatrixKind(kind) ? makeHalves(backend, scratch, call, kind, false) : undefined;
  if (split.splits === 1) {
    const standIns = runWith(backend, halves, call, {kernel: 'forward', forGradient, operands, bindings});
    standIns.forEach(one => run(backend, call, one));
    return;
  }
  const take: Make<ScratchBuffer> = (name, shape) => scratch.take(name, shape);
  const parts = makeResults(problem, take, take, [split.splits]);
  const standIns = runWith(backend, halves, call, {
    kernel: 'forward', variants: VARIANT.split, forGradient, operands,
    bindings: [...pairs, ...bindResults(parts, {})],
  });
  standIns.forEach(one => run(backend, call, one));
  run(backend, call, {
    kernel: 'merge_splits', forGradient,
    bindings: [
      {binding: SLOT.savedOutput, tensor: parts.output},
      {binding: 11, tensor: parts.lse},
      {binding: 12, tensor: parts.lseTail},
      ...bindResults(results, whole),
    ],
  });
}

/** Whether a forward pass is by a plan for gradients: one that is forced runs as asked, and its LSE is made again. */
const isForGradient = ({forGradient}: AttentionAttrs|GradAttrs): boolean =>
    forGradient === true && forcedPlan() === undefined;

function forwardKernel(inputs: unknown, attributes: NamedAttrMap, backend: Backend): TensorInfo[] {
  const attrs = attributes as unknown as AttentionAttrs;
  const call = kernelCall(inputs, attrs);
  const {problem} = call;
  checkBackend(backend);
  if (util.sizeFromShape(lseShape(problem)) === 0) {
    const make: Make<TensorInfo> = (_, shape) => filledTensor(backend, shape, 0);
    const {output, lse, lseTail} = makeResults(problem, make, make);
    return [output, lse, lseTail];
  }
  return withScratch(backend, scratch => {
    const make: Make<TensorInfo> = (name, shape) => newTensor(backend, name, shape);
    if (attrs.outputOnly) {
      const results = makeResults(problem, make, (name, shape) => scratch.take(name, shape));
      forward(backend, scratch, call, isForGradient(attrs), results);
      return [results.output];
    }
    const results = makeResults(problem, make, make);
    forward(backend, scratch, call, isForGradient(attrs), results);
    return [results.output, results.lse, results.lseTail];
  });
}

/** The shape of a gradient as the kernels give it. */
function gradientShape(name: WantedGradient, {tensors, problem}: KernelCall<GradInputName>): number[] {
  return name === 'bias' ? biasGradientShape(problem) : tensors[name]!.shape;
}

/** Over subgroup matrices, head sizes from which on the sums of dK and of dV do not fit the registers together. */
const SEPARATE_SUMS = 129;

/**
 * dK and dV, or one of them. Two kernels where one would bind more buffers or hold more sums than fit.
 * @returns what has to run behind them: see runWith.
 */
function keyGradients(
    backend: Backend, halves: Halves|undefined, call: Call, operands: readonly Binding[], bindings: readonly Binding[],
    keys: TensorInfo|undefined, values: TensorInfo|undefined): Run[] {
  const isShared = keys === values || !keys || !values;
  const mostBuffers = limitsOf(backend.device).maxStorageBuffersPerShaderStage;
  const {headSize, valueSize} = call.problem;
  if (keys && values && (operands.length + bindings.length + (isShared ? 1 : 2) > mostBuffers ||
                         halves && Math.max(headSize, valueSize) >= SEPARATE_SUMS)) {
    return [
      ...keyGradients(backend, halves, call, operands, bindings, keys, undefined),
      ...keyGradients(backend, halves, call, operands, bindings, undefined, values),
    ];
  }
  const second: Binding[] = isShared ? [] : [{binding: SLOT.result1, tensor: values!, operand: 'v'}];
  return runWith(backend, halves, call, {
    kernel: 'backward_dkv',
    variants: (keys ? VARIANT.wantKeys : 0) | (values ? VARIANT.wantValues : 0) | (isShared ? VARIANT.sharedResult : 0),
    operands,
    bindings: [
      ...bindings, {binding: SLOT.result0, tensor: (keys ?? values)!, operand: keys ? 'k' : 'v'}, ...second,
    ],
  });
}

/** Makes what the backward kernels need of each row, from what a forward pass left. */
function rowStatistics(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>,
    {output, lse, lseTail}: Results<TensorInfo|ScratchBuffer>): Binding {
  const {dOutput, dLse} = call.tensors;
  const statistics = scratch.take('the row statistics', [...lseShape(call.problem), 4]);
  run(backend, call, {
    kernel: 'row_statistics', variants: dLse ? VARIANT.hasLseGradient : 0,
    bindings: [
      {binding: SLOT.savedOutput, tensor: output, operand: 'output'},
      {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
      {binding: 9, tensor: lse, operand: 'rows'},
      {binding: 10, tensor: lseTail, operand: 'rows'},
      {binding: 11, tensor: dLse ?? lse, operand: 'rows'},
      {binding: 12, tensor: statistics, operand: 'statistics'},
    ],
  });
  return {binding: 9, tensor: statistics, operand: 'statistics'};
}

/** Into `results`: whatever gradients have a tensor there. */
function gradients(
    backend: Backend, scratch: Scratch, call: KernelCall<GradInputName>, forGradient: boolean,
    results: Partial<Record<WantedGradient, TensorInfo>>): void {
  const {tensors, problem} = call;
  const take: Make<ScratchBuffer> = (name, shape) => scratch.take(name, shape);
  const forwardAgain = (plain: boolean) => {
    const again = makeResults(problem, take, take);
    withScratch(
        backend, inner => forward(backend, inner, call as KernelCall<AttentionInputName>, true, again, plain));
    return again;
  };
  const canStart = canStartFromLse(backend.device, problem, forGradient);
  const saved = canStart ? tensors as Results<TensorInfo> : forwardAgain(false);
  const statisticsOf = rowStatistics(backend, scratch, call, saved);
  const {operands, pairs} = tileBindings(backend, scratch, call, true);
  const shared = [...pairs, statisticsOf];
  const dQ = results.q ?? results.qkv;
  const dK = results.k ?? results.kv ?? results.qkv;
  const dV = results.v ?? results.kv ?? results.qkv;
  const wantedKernels = [...dQ ? ['backward_dq'] as const : [], ...dK || dV ? ['backward_dkv'] as const : []];
  const kind = wantedKernels.map(kernel => kindOf(backend.device, kernel, problem).kind).find(isMatrixKind);
  const halves = kind ? makeHalves(backend, scratch, call, kind, true) : undefined;
  // The longer one first: the other fills the GPU while its last workgroups run.
  const standIns = dK || dV ? keyGradients(backend, halves, call, operands, shared, dK, dV) : [];
  if (dQ) {
    const bindings: Binding[] = [...shared, {binding: SLOT.result0, tensor: dQ, operand: 'q'}];
    standIns.push(...runWith(backend, halves, call, {kernel: 'backward_dq', operands, bindings}));
  }
  standIns.forEach(one => run(backend, call, one));
  if (results.bias) {
    const [, , queries, keys] = biasGradientShape(problem);
    // Its scores are rounded without matrices, from which those of split operands differ by too much for float32.
    const {kind: forwardKind} = kindOf(backend.device, 'forward', problem, !canStart || forGradient);
    const statistics = forwardKind === 'matrix_split' ?
        rowStatistics(backend, scratch, call, forwardAgain(true)) : statisticsOf;
    run(backend, call, {
      kernel: 'backward_dbias',
      variants: (queries !== problem.queryLength ? VARIANT.overQueries : 0) |
          (keys !== problem.keyLength ? VARIANT.overKeys : 0),
      operands,
      bindings: [...pairs, statistics, {binding: SLOT.biasGradient, tensor: results.bias, operand: 'biasGradient'}],
    });
  }
}

function gradKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {wanted} = attrs as unknown as GradAttrs;
  const call = kernelCall(inputs, attrs as unknown as GradAttrs);
  checkBackend(backend);
  if (isEmpty(call.problem)) {
    return wanted.map(name => filledTensor(backend, gradientShape(name, call), 0));
  }
  const results: Partial<Record<WantedGradient, TensorInfo>> = {};
  for (const name of wanted) {
    results[name] = newTensor(backend, `the gradient of ${name}`, gradientShape(name, call));
  }
  withScratch(backend, scratch => {
    gradients(backend, scratch, call, isForGradient(attrs as unknown as GradAttrs), results);
  });
  return wanted.map(name => results[name]!);
}

/** Writes into the cache's own buffers. What tfjs may have read of them to the host is forgotten. */
function appendKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {tensors, problem} = appendCall(inputs, attrs as unknown as AppendAttrs);
  const {newK, newV, k, v, blockTable} = tensors;
  checkBackend(backend);
  if (util.sizeFromShape(newK.shape) > 0) {
    run(backend, {tensors, problem, seed: 0}, {
      kernel: 'cache_append',
      bindings: [
        {binding: SLOT.q, tensor: newK, operand: 'q'},
        {binding: SLOT.dOutput, tensor: newV, operand: 'output'},
        {binding: SLOT.result0, tensor: k, operand: 'k'},
        {binding: SLOT.result1, tensor: v, operand: 'v'},
        ...blockTable ? [{binding: SLOT.blockTable, tensor: blockTable}] : [],
      ],
    });
  }
  return [k, v].map(({dataId, shape, dtype}) => {
    (backend.tensorMap.get(dataId as DataId) as {values?: BackendValues}).values = undefined;
    backend.incRef(dataId as DataId);
    return {dataId, shape, dtype};
  });
}

const KERNELS = {
  [FLASH_ATTENTION]: forwardKernel, [FLASH_ATTENTION_GRAD]: gradKernel, [FLASH_ATTENTION_CACHE_APPEND]: appendKernel,
};

const runPlanned: RunKernel = ({name, attrs}, inputs, backend) =>
    orNothing(backend, () => KERNELS[name](inputs, attrs as unknown as NamedAttrMap, backend));

const prepareKernel: PrepareKernel = (backend, kernels) => prepareAhead((backend as Backend).device, planning => {
  kernels.forEach(kernel => runPlanned(kernel, kernel.inputs, planning));
});

const tuneKernel: TuneKernel = (backend, kernels, milliseconds) =>
    tuneKernels(backend as Backend, kernels, milliseconds, runPlanned);

const ABOUT_KERNELS = {[FLASH_ATTENTION_PREPARE]: prepareKernel, [FLASH_ATTENTION_TUNE]: tuneKernel};

/** Registers the WGSL kernels with tfjs' webgpu backend. They need no part of it until they run. */
export function registerWebGPUKernels(): void {
  for (const [kernelName, f] of Object.entries(ABOUT_KERNELS)) {
    registerKernel({kernelName, backendName: 'webgpu', kernelFunc: f as unknown as KernelFunc});
  }
  for (const [kernelName, execute] of Object.entries(KERNELS)) {
    const config: KernelConfig = {
      kernelName,
      backendName: 'webgpu',
      kernelFunc: call => {
        const backend = call.backend as unknown as Backend;
        return orNothing(backend, () => execute(call.inputs, call.attrs!, backend));
      },
    };
    registerKernel(config);
  }
}
