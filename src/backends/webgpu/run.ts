import {env, util} from '@tensorflow/tfjs-core';
import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';

import {isLasting} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {bufferOf, isExternal, record, uniformBuffer} from './backend.js';
import type {Backend, ScratchBuffer} from './backend.js';
import {bindGroupOf, checkSize, limitsOf} from './device.js';
import {writeSeed} from './params.js';
import {prepare, VARIANT} from './prepare.js';
import type {PreparedPart, Task} from './prepare.js';
import {makeTable} from './table.js';
import type {TableTensors} from './table.js';
import type {OperandName} from './windows.js';
import {TURNING_WORKGROUPS} from './workgroups.js';

/** A tensor bound to a kernel: @binding number in kernels/wgsl, and how its elements are laid out. */
export interface Binding {
  readonly binding: number;
  readonly tensor: TensorInfo|ScratchBuffer;
  /** Its place in the problem; none where the whole tensor is bound as it is. */
  readonly operand?: OperandName;
}

/** @binding numbers in kernels/wgsl. */
export const SLOT = {
  q: 1, k: 2, v: 3, dOutput: 4, savedOutput: 5, result0: 6, result1: 7, mask: 8, maskTensor: 9, dLse: 11, bias: 13,
  blockTable: 14, biasGradient: 14, table: 15, largest: 16, halfQ: 17, halfK: 18, halfV: 19, halfDOutput: 20,
} as const;

/** The call that kernels run for: its tensors as far as kernels read them from the table, and what it computes. */
export interface Call {
  readonly tensors: TableTensors;
  readonly problem: Problem;
  readonly seed: number;
}

/** One kernel of a call. */
export interface Run extends Omit<Task, 'problem'> {
  /** q, k, v, dO and the block table, which kernels over subgroup matrices have as f16: see halves. */
  readonly operands?: readonly Binding[];
  readonly bindings: readonly Binding[];
}

function parameters(backend: Backend, {params}: PreparedPart, seed: number, uniforms: GPUBuffer[]): GPUBuffer {
  if (!(params instanceof ArrayBuffer)) {
    return params;
  }
  writeSeed(params, seed);
  const buffer = uniformBuffer(backend, params);
  uniforms.push(buffer);
  return buffer;
}

/** Runs one kernel over all windows of the problem. */
export function run(backend: Backend, {tensors: small, problem, seed}: Call, one: Run): void {
  const {kernel, operands, variants = 0, forGradient} = one;
  const task: Task = {kernel, problem, variants, forGradient};
  if (backend.planned) {
    backend.planned.push(task);
    return;
  }
  const bindings = operands ? [...operands, ...one.bindings] : one.bindings;
  const {device} = backend;
  const {kind, pipeline, layout, parts} = prepare(device, task);
  // Next to nothing to do, as a rule; but split operands are all made the second time.
  const isIdle = (variants & VARIANT.routed) !== 0 ||
      (variants & (VARIANT.again | VARIANT.splitOperands)) === VARIANT.again;
  const tensors: TensorInfo[] = [];
  const buffers: GPUBuffer[] = [];
  let keepsGroups = isLasting(problem);
  for (const {tensor} of bindings) {
    if ('scratch' in tensor) {
      buffers.push(tensor.scratch);
      continue;
    }
    buffers.push(bufferOf(backend, tensor));
    tensors.push(tensor);
    // A buffer of the caller's own may be waiting for the garbage collector: nothing of ours holds on to it.
    keepsGroups &&= !isExternal(backend, tensor);
  }
  const submitAfter = env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE');
  for (const part of parts) {
    const uniforms: GPUBuffer[] = [];
    const params = parameters(backend, part, seed, uniforms);
    const table = part.table && makeTable(backend, part.table, small);
    if (table) {
      uniforms.push(table.buffer);
    }
    const bound = uniforms.length > 0 ? [...uniforms, ...buffers] : buffers;
    const makeBindGroup = () => {
      const entries: GPUBindGroupEntry[] = [{binding: 0, resource: {buffer: params}}];
      bindings.forEach(({binding, operand}, n) => {
        const range = operand && part.ranges[operand];
        entries.push({binding, resource: {buffer: buffers[n], offset: range?.offset, size: range?.size}});
      });
      if (table) {
        entries.push({binding: SLOT.table, resource: {buffer: table.buffer}});
      }
      return device.createBindGroup({layout, entries});
    };
    record(
        backend, {
          name: `FlashAttention ${kernel} ${kind}`,
          pipeline,
          bindGroup: keepsGroups ? bindGroupOf(device, part.id, bound, makeBindGroup) : makeBindGroup(),
          workgroups: part.workgroups,
          tensors: table ? [...tensors, ...table.tensors] : tensors,
          uniforms,
          isMinor: isIdle || kernel === 'to_half' && part.workgroups[0] < TURNING_WORKGROUPS,
        },
        submitAfter);
  }
}

/** What the kernel that runs has made so far. Kernels do not run inside each other. */
const made: TensorInfo[] = [];

/** Runs a kernel; where it fails, what it has made goes with it: tfjs does not know of it yet. */
export function orNothing<T>(backend: Backend, kernel: () => T): T {
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

/** A tensor without contents, its buffer allocated. */
export function newTensor(backend: Backend, name: string, shape: number[]): TensorInfo {
  checkSize(limitsOf(backend.device), name, 4 * util.sizeFromShape(shape));
  const tensor = backend.makeTensorInfo(shape, 'float32');
  made.push(tensor);
  backend.uploadToGPU(tensor.dataId);
  return tensor;
}

export function filledTensor(backend: Backend, shape: number[], value: number): TensorInfo {
  return backend.makeTensorInfo(shape, 'float32', new Float32Array(util.sizeFromShape(shape)).fill(value));
}
