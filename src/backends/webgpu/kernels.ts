import {env, registerKernel, util} from '@tensorflow/tfjs-core';
import type {KernelConfig, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION, FLASH_ATTENTION_GRAD, kernelCall} from '../../op/kernels.js';
import type {AttentionAttrs, GradAttrs, WantedGradient} from '../../op/kernels.js';
import {isEmpty, keyShape, lseShape, outputShape, queryShape, valueShape} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {bufferOf, record, uniformBuffer} from './backend.js';
import type {Backend} from './backend.js';
import {checkDevice, checkSize, pipelineOf, watchMemory} from './device.js';
import {packParams} from './params.js';
import {grid, makePlan, workgroupCount} from './plan.js';
import type {DeviceLimits, Features, KernelName} from './plan.js';
import {headsPerKey, makeWindows, operand, rangeOf} from './windows.js';
import type {OperandName} from './windows.js';

/** A tensor bound to a kernel: @binding number in kernels/wgsl, and how its elements are laid out. */
interface Binding {
  readonly binding: number;
  readonly tensor: TensorInfo;
  /** Its place in the problem; none for a placeholder that the kernel does not touch. */
  readonly operand?: OperandName;
}

/** @binding numbers that are the same in every kernel (access_*.wgsl, visibility.wgsl). */
const SLOT = {q: 1, k: 2, v: 3, dOutput: 4, savedOutput: 5, result0: 6, result1: 7, mask: 8} as const;

/** Runs one kernel over all windows of the problem. */
function run(
    backend: Backend, kernel: KernelName, problem: Problem, features: Partial<Features>,
    bindings: readonly Binding[]): void {
  const {device} = backend;
  const limits: DeviceLimits = device.limits;
  const plan = makePlan(kernel, problem, limits, features);
  const pipeline = pipelineOf(device, plan);
  const layout = pipeline.getBindGroupLayout(0);
  const buffers = bindings.map(({tensor}) => bufferOf(backend, tensor));
  const submitAfter = env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE');
  for (const window of makeWindows(kernel, problem, limits)) {
    const uniforms = uniformBuffer(backend, packParams(kernel, problem, window, limits));
    const entries: GPUBindGroupEntry[] = [{binding: 0, resource: {buffer: uniforms}}];
    bindings.forEach(({binding, operand: name}, n) => {
      const range = name && rangeOf(operand(problem, name), problem, window, limits);
      entries.push({binding, resource: {buffer: buffers[n], offset: range?.offset, size: range?.size}});
    });
    record(
        backend, {
          name: `FlashAttention ${kernel}`,
          pipeline,
          bindGroup: device.createBindGroup({layout, entries}),
          workgroups: grid(workgroupCount(plan, window, headsPerKey(problem, window)), limits),
          tensors: bindings.map(({tensor}) => tensor),
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
  watchMemory(device, bytes, () => backend.uploadToGPU(tensor.dataId));
  return tensor;
}

function filledTensor(backend: Backend, shape: number[], value: number): TensorInfo {
  return backend.makeTensorInfo(shape, 'float32', new Float32Array(util.sizeFromShape(shape)).fill(value));
}

function forwardKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {tensors: {q, k, v, mask}, problem} = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  checkDevice(backend.device);
  if (isEmpty(problem)) {
    return [
      filledTensor(backend, outputShape(problem), 0), filledTensor(backend, lseShape(problem), -Infinity),
      filledTensor(backend, lseShape(problem), 0),
    ];
  }
  const output = newTensor(backend, 'the output', outputShape(problem));
  const lse = newTensor(backend, 'the LSE', lseShape(problem));
  const lseTail = newTensor(backend, 'the tail of the LSE', lseShape(problem));
  run(backend, 'forward', problem, {}, [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    {binding: SLOT.k, tensor: k, operand: 'k'},
    {binding: SLOT.v, tensor: v, operand: 'v'},
    {binding: SLOT.mask, ...optional(mask, 'mask', q, 'q')},
    {binding: SLOT.result0, tensor: output, operand: 'output'},
    {binding: 9, tensor: lse, operand: 'rows'},
    {binding: 10, tensor: lseTail, operand: 'rows'},
  ]);
  return [output, lse, lseTail];
}

/** A binding that a shader declares and does not read still needs a buffer: any that is bound for reading anyway. */
function optional(
    tensor: TensorInfo|undefined, name: OperandName, standIn: TensorInfo,
    standInName: OperandName): Omit<Binding, 'binding'> {
  return tensor ? {tensor, operand: name} : {tensor: standIn, operand: standInName};
}

const GRADIENT_SHAPE: Record<WantedGradient, (p: Problem) => number[]> = {q: queryShape, k: keyShape, v: valueShape};

function gradKernel(inputs: unknown, attrs: NamedAttrMap, backend: Backend): TensorInfo[] {
  const {wanted} = attrs as unknown as GradAttrs;
  const {tensors, problem} = kernelCall(inputs, attrs as unknown as GradAttrs);
  const {q, k, v, mask, output, lse, lseTail, dOutput, dLse} = tensors;
  checkDevice(backend.device);
  if (isEmpty(problem)) {
    return wanted.map(name => filledTensor(backend, GRADIENT_SHAPE[name](problem), 0));
  }
  const results: Partial<Record<WantedGradient, TensorInfo>> = {};
  for (const name of wanted) {
    results[name] = newTensor(backend, `the gradient of ${name}`, GRADIENT_SHAPE[name](problem));
  }
  const [batch, heads, queries] = lseShape(problem);
  const statistics = newTensor(backend, 'the row statistics', [batch, heads, queries, 4]);
  run(backend, 'row_statistics', problem, {hasLseGradient: dLse !== undefined}, [
    {binding: SLOT.savedOutput, tensor: output!, operand: 'output'},
    {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
    {binding: 9, tensor: lse!, operand: 'rows'},
    {binding: 10, tensor: lseTail!, operand: 'rows'},
    {binding: 11, tensor: dLse ?? lse!, operand: 'rows'},
    {binding: 12, tensor: statistics, operand: 'statistics'},
  ]);
  const common: Binding[] = [
    {binding: SLOT.q, tensor: q, operand: 'q'},
    {binding: SLOT.k, tensor: k, operand: 'k'},
    {binding: SLOT.v, tensor: v, operand: 'v'},
    {binding: SLOT.dOutput, tensor: dOutput!, operand: 'output'},
    {binding: SLOT.mask, ...optional(mask, 'mask', q, 'q')},
    {binding: 9, tensor: statistics, operand: 'statistics'},
  ];
  if (results.q) {
    run(backend, 'backward_dq', problem, {}, [...common, {binding: SLOT.result0, tensor: results.q, operand: 'q'}]);
  }
  if (results.k || results.v) {
    // The shader declares both results; the one that is not wanted gets a few bytes that are never written.
    const placeholder = newTensor(backend, 'a placeholder', [4]);
    const result = (name: 'k'|'v') => results[name] ? {tensor: results[name], operand: name} : {tensor: placeholder};
    run(backend, 'backward_dkv', problem, {wantKeys: results.k !== undefined, wantValues: results.v !== undefined}, [
      ...common,
      {binding: SLOT.result0, ...result('k')},
      {binding: SLOT.result1, ...result('v')},
    ]);
    backend.disposeData(placeholder.dataId);
  }
  backend.disposeData(statistics.dataId);
  return wanted.map(name => results[name]!);
}

/** Registers the WGSL kernels with tfjs' webgpu backend. They need no part of it until they run. */
export function registerWebGPUKernels(): void {
  const configs: Array<[string, typeof forwardKernel]> =
      [[FLASH_ATTENTION, forwardKernel], [FLASH_ATTENTION_GRAD, gradKernel]];
  for (const [kernelName, execute] of configs) {
    const config: KernelConfig = {
      kernelName,
      backendName: 'webgpu',
      kernelFunc: ({inputs, attrs, backend}) => execute(inputs, attrs!, backend as unknown as Backend),
    };
    registerKernel(config);
  }
}
