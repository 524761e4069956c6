import {env, registerKernel, util} from '@tensorflow/tfjs-core';
import type {BackendValues, DataId, KernelConfig, KernelFunc, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {
  appendCall, FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD, FLASH_ATTENTION_PREPARE, kernelCall,
} from '../../op/kernels.js';
import type {
  AppendAttrs, AttentionAttrs, AttentionInputName, GradAttrs, GradInputName, KernelCall, PrepareKernel, WantedGradient,
} from '../../op/kernels.js';
import {biasGradientShape, isEmpty, lseShape, rowShape} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {bufferOf, record, uniformBuffer} from './backend.js';
import type {Backend} from './backend.js';
import {checkSize} from './device.js';
import {checkBackend} from './guarded_backend.js';
import {prepare, splitOf} from './prepare.js';
import type {Task} from './prepare.js';
import {prepareAhead} from './prepare_ahead.js';
import {makeTable} from './table.js';
import type {TableTensors} from './table.js';
import type {OperandName} from './windows.js';

/** A tensor bound to a kernel: @binding number in kernels/wgsl, and how its elements are laid out. */
interface Binding {
  readonly binding: number;
  readonly tensor: TensorInfo;
  /** Its place in the problem; none where the whole tensor is bound as it is. */
  readonly operand?: OperandName;
}

/** @binding numbers in kernels/wgsl. */
const SLOT = {
  q: 1, k: 2, v: 3, dOutput: 4, savedOutput: 5, result0: 6, result1: 7, mask: 8, bias: 13, blockTable: 14,
  biasGradient: 14, table: 15,
} as const;

/** What one kernel runs on. */
interface Run extends Task {
  readonly bindings: readonly Binding[];
  readonly small: TableTensors;
}

/** Runs one kernel over all windows of the problem. */
function run(backend: Backend, task: Run): void {
  if (backend.planned) {
    backend.planned.push(task);
    return;
  }
  const {kernel, problem, bindings, small} = task;
  const {device} = backend;
  const {plan, pipeline, layout, parts} = prepare(device, task);
  const buffers = bindings.map(({tensor}) => bufferOf(backend, tensor));
  const submitAfter = env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE');
  for (const {window, params, workgroups, ranges} of parts) {
    const uniforms: GPUBuffer[] = [];
    if (params instanceof ArrayBuffer) {
      uniforms.push(uniformBuffer(backend, params));
    }
    const entries: GPUBindGroupEntry[] = [
      {binding: 0, resource: {buffer: params instanceof ArrayBuffer ? uniforms[0] : params}},
    ];
    bindings.forEach(({binding, operand: name}, n) => {
      const range = name && ranges[name];
      entries.push({binding, resource: {buffer: buffers[n], offset: range?.offset, size: range?.size}});
    });
    const table = makeTable(backend, plan, problem, window, small);
    if (table) {
      uniforms.push(table.buffer);
      entries.push({binding: SLOT.table, resource: {buffer: table.buffer}});
    }
    record(
        backend, {
          name: `FlashAttention ${kernel}`,
          pipeline,
          bindGroup: device.createBindGroup({layout, entries}),
          workgroups,
          tensors: [...bindings.map(({tensor}) => tensor), ...table?.tensors ?? []],
          uniforms,
        },
        submitAfter);
  }
}

/** A tensor without contents, its buffer allocated. */
function newTensor(backend: Backend, name: string, shape: number[]): TensorInfo {
  const {device} = backend;
  const bytes = 4 * util.sizeFromShape(shape);
  checkSize(device.limits, name, bytes);
  const tensor = backend.makeTensorInfo(shape, 'float32');
  made.push(tensor);
  backend.uploadToGPU(tensor.dataId);
  return tensor;
}

/** What the kernel that runs has made so far. Kernels do not run inside each other. */
const made: TensorInfo[] = [];

/** Runs a kernel; where it fails, what it has made goes with it: tfjs does not know of it yet. */
function orNothing<T>(backend: Backend, kernel: () => T): T {
  made.length = 0;
  try {
    return kernel();
  } catch (error) {
    const left = made.filter(({dataId}) => backend.refCount(dataId as DataId) > 0);
    left.forEach(({dataId}) => backend.disposeData(dataId));
    throw error;
  } finally {
    made.length = 0;
  }
}

function filledTensor(backend: Backend, shape: number[], value: number): TensorInfo {
  return backend.makeTensorInfo(shape, 'float32', new Float32Array(util.sizeFromShape(shape)).fill(value));
}

type Call = KernelCall<AttentionInputName>;

/** What every kernel over tiles binds: q, k, v and what goes with their pairs. */
function rowBindings({tensors, problem}: Call): Binding[] {
  const {q, k, v, mask, bias, blockTable} = tensors;
  const hasKeys = problem.keyRows > 0;
  const list: Binding[] = [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    // Without keys there is nothing to bind, and nothing is read: q stands in.
    {binding: SLOT.k, ...hasKeys ? {tensor: k, operand: 'k'} : {tensor: q}},
    {binding: SLOT.v, ...hasKeys ? {tensor: v, operand: 'v'} : {tensor: q}},
  ];
  if (mask) {
    list.push({binding: SLOT.mask, ...hasKeys ? {tensor: mask, operand: 'mask'} : {tensor: q}});
  }
  if (bias) {
    list.push({binding: SLOT.bias, ...hasKeys ? {tensor: bias, operand: 'bias'} : {tensor: q}});
  }
  if (blockTable) {
    list.push({binding: SLOT.blockTable, tensor: blockTable});
  }
  return list;
}

/** The results of a forward pass, or of one part of the keys of it. */
interface Results {
  readonly output: TensorInfo;
  readonly lse: TensorInfo;
  readonly lseTail: TensorInfo;
}

function newResults(backend: Backend, problem: Problem, parts: number[], of: string): Results {
  return {
    output: newTensor(backend, `the output${of}`, [...parts, ...rowShape(problem, 'output')]),
    lse: newTensor(backend, `the LSE${of}`, [...parts, ...lseShape(problem)]),
    lseTail: newTensor(backend, `the tail of the LSE${of}`, [...parts, ...lseShape(problem)]),
  };
}

function forward(backend: Backend, call: Call): Results {
  const {tensors, problem} = call;
  const results = newResults(backend, problem, [], '');
  const bindResults = ({output, lse, lseTail}: Results, name: {output?: OperandName, rows?: OperandName}): Binding[] =>
      [
        {binding: SLOT.result0, tensor: output, operand: name.output},
        {binding: 9, tensor: lse, operand: name.rows},
        {binding: 10, tensor: lseTail, operand: name.rows},
      ];
  const whole = {output: 'output', rows: 'rows'} as const;
  const split = splitOf(backend.device, problem);
  if (split.splits === 1) {
    const bindings = [...rowBindings(call), ...bindResults(results, whole)];
    run(backend, {kernel: 'forward', problem, bindings, small: tensors});
    return results;
  }
  const parts = newResults(backend, problem, [split.splits], ' of the split keys');
  const splitStrides = {
    output: util.sizeFromShape(results.output.shape), rows: util.sizeFromShape(results.lse.shape),
  };
  run(backend, {
    kernel: 'forward', problem, small: tensors, split, splitStrides, features: {split: true},
    bindings: [...rowBindings(call), ...bindResults(parts, {})],
  });
  run(backend, {
    kernel: 'merge_splits', problem, small: tensors, split, splitStrides,
    bindings: [
      {binding: SLOT.savedOutput, tensor: parts.output},
      {binding: 11, tensor: parts.lse},
      {binding: 12, tensor: parts.lseTail},
      ...bindResults(results, whole),
    ],
  });
  Object.values(parts).forEach(({dataId}: TensorInfo) => backend.disposeData(dataId));
  return results;
}

function forwardKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const call = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  const {problem} = call;
  checkBackend(backend);
  if (util.sizeFromShape(lseShape(problem)) === 0) {
    return [
      filledTensor(backend, rowShape(problem, 'output'), 0), filledTensor(backend, lseShape(problem), 0),
      filledTensor(backend, lseShape(problem), 0),
    ];
  }
  const {output, lse, lseTail} = forward(backend, call);
  return [output, lse, lseTail];
}

/** The shape of a gradient as the kernels give it. */
function gradientShape(name: WantedGradient, {tensors, problem}: KernelCall<GradInputName>): number[] {
  return name === 'bias' ? biasGradientShape(problem) : tensors[name]!.shape;
}

/** dK and dV, or one of them. Two kernels where one would bind more buffers than the device allows. */
function keyGradients(
    backend: Backend, task: Omit<Run, 'kernel'>, keys: TensorInfo|undefined, values: TensorInfo|undefined) {
  const isShared = keys === values || !keys || !values;
  const mostBuffers = backend.device.limits.maxStorageBuffersPerShaderStage;
  if (keys && values && task.bindings.length + (isShared ? 1 : 2) > mostBuffers) {
    keyGradients(backend, task, keys, undefined);
    keyGradients(backend, task, undefined, values);
    return;
  }
  const second: Binding[] = isShared ? [] : [{binding: SLOT.result1, tensor: values!, operand: 'v'}];
  run(backend, {
    ...task,
    kernel: 'backward_dkv',
    features: {wantKeys: keys !== undefined, wantValues: values !== undefined, sharedResult: isShared},
    bindings: [
      ...task.bindings, {binding: SLOT.result0, tensor: (keys ?? values)!, operand: keys ? 'k' : 'v'}, ...second,
    ],
  });
}

function gradKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {wanted} = attrs as unknown as GradAttrs;
  const call = kernelCall(inputs, attrs as unknown as GradAttrs);
  const {tensors, problem} = call;
  const {output, lse, lseTail, dOutput, dLse} = tensors;
  checkBackend(backend);
  if (isEmpty(problem)) {
    return wanted.map(name => filledTensor(backend, gradientShape(name, call), 0));
  }
  const results: Partial<Record<WantedGradient, TensorInfo>> = {};
  for (const name of wanted) {
    results[name] = newTensor(backend, `the gradient of ${name}`, gradientShape(name, call));
  }
  const statistics = newTensor(backend, 'the row statistics', [...lseShape(problem), 4]);
  run(backend, {
    kernel: 'row_statistics', problem, small: tensors, features: {hasLseGradient: dLse !== undefined},
    bindings: [
      {binding: SLOT.savedOutput, tensor: output!, operand: 'output'},
      {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
      {binding: 9, tensor: lse!, operand: 'rows'},
      {binding: 10, tensor: lseTail!, operand: 'rows'},
      {binding: 11, tensor: dLse ?? lse!, operand: 'rows'},
      {binding: 12, tensor: statistics, operand: 'statistics'},
    ],
  });
  const task = {
    problem, small: tensors,
    bindings: [
      ...rowBindings(call as Call),
      {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
      {binding: 9, tensor: statistics, operand: 'statistics'},
    ] as Binding[],
  };
  const dQ = results.q ?? results.qkv;
  const dK = results.k ?? results.kv ?? results.qkv;
  const dV = results.v ?? results.kv ?? results.qkv;
  if (dQ) {
    const bindings: Binding[] = [...task.bindings, {binding: SLOT.result0, tensor: dQ, operand: 'q'}];
    run(backend, {...task, kernel: 'backward_dq', bindings});
  }
  if (dK || dV) {
    keyGradients(backend, task, dK, dV);
  }
  if (results.bias) {
    const [, , queries, keys] = biasGradientShape(problem);
    run(backend, {
      ...task, kernel: 'backward_dbias',
      features: {overQueries: queries !== problem.queryLength, overKeys: keys !== problem.keyLength},
      bindings: [...task.bindings, {binding: SLOT.biasGradient, tensor: results.bias, operand: 'biasGradient'}],
    });
  }
  backend.disposeData(statistics.dataId);
  return wanted.map(name => results[name]!);
}

/** Writes into the cache's own buffers. What tfjs may have read of them to the host is forgotten. */
function appendKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {tensors, problem} = appendCall(inputs, attrs as unknown as AppendAttrs);
  const {newK, newV, k, v, blockTable} = tensors;
  checkBackend(backend);
  if (util.sizeFromShape(newK.shape) > 0) {
    run(backend, {
      kernel: 'cache_append', problem, small: tensors,
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

const prepareKernel: PrepareKernel = (backend, kernels) => prepareAhead((backend as Backend).device, planning => {
  kernels.forEach(({name, inputs, attrs}) => KERNELS[name](inputs, attrs as unknown as NamedAttrMap, planning));
});

/** Registers the WGSL kernels with tfjs' webgpu backend. They need no part of it until they run. */
export function registerWebGPUKernels(): void {
  registerKernel({
    kernelName: FLASH_ATTENTION_PREPARE, backendName: 'webgpu', kernelFunc: prepareKernel as unknown as KernelFunc,
  });
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
