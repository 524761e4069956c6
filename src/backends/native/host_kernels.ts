import {util} from '@tensorflow/tfjs-core';
import type {DataId, DataType, KernelBackend, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {kernelCall} from '../../op/kernels.js';
import type {AttentionAttrs, GradAttrs, GradInputName} from '../../op/kernels.js';
import {lseShape, rowShape} from '../../op/problem.js';

import type {HostArray, NativeBinding} from './binding.js';
import {describeCall, inNativeOrder, pagesOf} from './description.js';
import type {NativeCall} from './description.js';

/** The addon's kernels straight on the memory of backends that keep tensors in the host's. */

/** How a backend's tensors are reached. */
interface HostMemory {
  /** A new tensor, its contents undefined. */
  allocate(backend: KernelBackend, shape: number[]): TensorInfo;
  values(backend: KernelBackend, tensor: TensorInfo): HostArray;
}

const ARRAYS = {float32: Float32Array, int32: Int32Array, bool: Uint8Array} as const;

/** The backend cpu may keep a tensor in another type's array: its cast from int32 to float32 copies nothing. */
function inArrayOf(dtype: DataType, values: ArrayLike<number>): HostArray {
  const type = ARRAYS[dtype as keyof typeof ARRAYS];
  return values instanceof type ? values : type.from(values);
}

interface WasmBackend extends KernelBackend {
  makeOutput(shape: number[], dtype: DataType): TensorInfo;
  typedArrayFromHeap(tensor: TensorInfo): HostArray;
}

export const HOST_MEMORIES: Record<'cpu'|'wasm', HostMemory> = {
  cpu: {
    allocate(backend, shape) {
      const dataId: DataId = backend.write(new Float32Array(util.sizeFromShape(shape)), shape, 'float32');
      return {dataId, shape, dtype: 'float32'};
    },
    values: (backend, {dataId, dtype}) => inArrayOf(dtype, backend.readSync(dataId) as HostArray),
  },
  wasm: {
    allocate: (backend, shape) => (backend as WasmBackend).makeOutput(shape, 'float32'),
    values: (backend, tensor) => (backend as WasmBackend).typedArrayFromHeap(tensor),
  },
};

/**
 * @param names of the tensors, in the order of `inputs`
 * @param shapes of the results, in the addon's order
 */
function run(
    binding: NativeBinding, memory: HostMemory, backend: KernelBackend, call: NativeCall,
    inputs: readonly TensorInfo[], shapes: number[][]): TensorInfo[] {
  const results: TensorInfo[] = [];
  try {
    // Before any memory is looked at: WebAssembly's may move when it grows.
    for (const shape of shapes) {
      results.push(memory.allocate(backend, shape));
    }
    const tensors = inNativeOrder(call.names)
        .map(name => memory.values(backend, inputs[call.names.indexOf(name)]));
    binding.run(describeCall(call), tensors, results.map(result => memory.values(backend, result) as Float32Array));
    return results;
  } catch (error) {
    for (const {dataId} of results) {
      backend.disposeData(dataId, true);
    }
    throw error;
  }
}

export function forwardOnHost(
    binding: NativeBinding, memory: HostMemory, inputs: unknown, attrs: NamedAttrMap,
    backend: KernelBackend): TensorInfo[] {
  const {inputNames: names} = attrs as unknown as AttentionAttrs;
  const {tensors: {blockTable}, problem, seed} = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  const call: NativeCall = {kind: 'forward', problem, seed, names, pagesPerSequence: pagesOf(blockTable)};
  const lse = lseShape(problem);
  return run(binding, memory, backend, call, inputs as TensorInfo[], [rowShape(problem, 'output'), lse, [...lse]]);
}

export function gradientOnHost(
    binding: NativeBinding, memory: HostMemory, inputs: unknown, attrs: NamedAttrMap,
    backend: KernelBackend): TensorInfo[] {
  const {inputNames: names, wanted} = attrs as unknown as GradAttrs;
  const {tensors, problem, seed} = kernelCall<GradInputName>(inputs, attrs as unknown as GradAttrs);
  const call: NativeCall = {kind: 'backward', problem, seed, names, pagesPerSequence: 0, wanted};
  const ordered = inNativeOrder(wanted);
  const results = run(
      binding, memory, backend, call, inputs as TensorInfo[], ordered.map(name => [...tensors[name]!.shape]));
  return wanted.map(name => results[ordered.indexOf(name)]);
}
