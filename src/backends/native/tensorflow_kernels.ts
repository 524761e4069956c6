import type {DataId, KernelBackend, NamedAttrMap, Tensor, TensorInfo} from '@tensorflow/tfjs-core';

import {appendCall, kernelCall} from '../../op/kernels.js';
import type {AppendAttrs, AppendInputName, AttentionAttrs, GradAttrs, GradInputName} from '../../op/kernels.js';

import type {NativeBinding} from './binding.js';
import {describeCall, DESCRIPTION_FORMAT, inNativeOrder, pagesOf} from './description.js';
import type {NativeCall} from './description.js';

/** The addon's ops of TensorFlow (kernels/addon/tensorflow_op.cc), which work where TensorFlow has the tensors. */

/** What is used of tfjs-node's backend. */
interface NodeBackend extends KernelBackend {
  readonly binding: {readonly TF_ATTR_INT: number};
  executeMultipleOutputs(
      name: string, attributes: Array<{name: string, type: number, value: number}>, inputs: TensorInfo[],
      outputs: number): Tensor[];
}

const OP = `TfjsFlashAttention${DESCRIPTION_FORMAT}`;

/** Whether TensorFlow computes on a GPU, where it has one. */
export const isOnGpu = (backend: unknown): boolean =>
    (backend as {isUsingGpuDevice?: boolean}).isUsingGpuDevice === true;

type ElementKind = 'integers'|'booleans'|'floats';

const kindOf = (name: GradInputName): ElementKind =>
    name === 'mask' ? 'booleans' : name === 'sequences' || name === 'blockTable' ? 'integers' : 'floats';

/** TensorFlow's words around an error of ours are left out. */
function ownError(error: unknown): unknown {
  const found = /flashAttention: [^]*/.exec((error as Error)?.message ?? '');
  return found ? new Error(found[0].replace(/ \[Op:\w+\]\s*$/, '').trim()) : error;
}

function execute(
    binding: NativeBinding, backend: NodeBackend, op: string, call: NativeCall, inputs: readonly TensorInfo[],
    outputs: number): Tensor[] {
  binding.registerTensorFlow(isOnGpu(backend));
  const lists: Record<ElementKind, TensorInfo[]> = {integers: [], booleans: [], floats: []};
  for (const name of inNativeOrder(call.names)) {
    lists[kindOf(name)].push(inputs[call.names.indexOf(name)]);
  }
  // The numbers' bits: as attributes each new one would make TensorFlow keep another kernel.
  const words = new Int32Array(describeCall(call).buffer);
  const dataId: DataId = backend.write(words, [words.length], 'int32');
  const lengths = {I: lists.integers.length, M: lists.booleans.length, F: lists.floats.length};
  const attributes = Object.entries(call.kind === 'backward' ? {...lengths, G: outputs} : lengths)
      .map(([name, value]) => ({name, type: backend.binding.TF_ATTR_INT, value}));
  try {
    return backend.executeMultipleOutputs(
        op, attributes,
        [{dataId, shape: [words.length], dtype: 'int32'}, ...lists.integers, ...lists.booleans, ...lists.floats],
        outputs);
  } catch (error) {
    throw ownError(error);
  } finally {
    backend.disposeData(dataId, true);
  }
}

export function forwardOnTensorFlow(
    binding: NativeBinding, inputs: unknown, attrs: NamedAttrMap, backend: KernelBackend): TensorInfo[] {
  const {inputNames: names} = attrs as unknown as AttentionAttrs;
  const {tensors: {blockTable}, problem, seed} = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  const call: NativeCall = {kind: 'forward', problem, seed, names, pagesPerSequence: pagesOf(blockTable)};
  return execute(binding, backend as NodeBackend, OP, call, inputs as TensorInfo[], 3);
}

export function gradientOnTensorFlow(
    binding: NativeBinding, inputs: unknown, attrs: NamedAttrMap, backend: KernelBackend): TensorInfo[] {
  const {inputNames: names, wanted} = attrs as unknown as GradAttrs;
  const {problem, seed} = kernelCall<GradInputName>(inputs, attrs as unknown as GradAttrs);
  const call: NativeCall = {kind: 'backward', problem, seed, names, pagesPerSequence: 0, wanted};
  const results = execute(binding, backend as NodeBackend, `${OP}Grad`, call, inputs as TensorInfo[], wanted.length);
  const ordered = inNativeOrder(wanted);
  return wanted.map(name => results[ordered.indexOf(name)]);
}

/** New rows and the cache under the names that the addon takes them by. */
const APPEND_NAMES: Record<AppendInputName, GradInputName> = {
  newK: 'q', newV: 'output', k: 'k', v: 'v', sequences: 'sequences', blockTable: 'blockTable',
};

/**
 * Writes into the memory that TensorFlow has the cache in. So whatever shares that memory changes too: the cache's own
 * clones and reshapes, as on the other backends, and slices along the first axis, which TensorFlow does not copy.
 */
export function appendOnTensorFlow(
    binding: NativeBinding, inputs: unknown, attrs: NamedAttrMap, backend: KernelBackend): TensorInfo[] {
  const append = attrs as unknown as AppendAttrs;
  const {tensors: {k, v, blockTable}, problem} = appendCall(inputs, append);
  const names = append.inputNames.map(name => APPEND_NAMES[name]);
  const call: NativeCall = {kind: 'append', problem, seed: 0, names, pagesPerSequence: pagesOf(blockTable)};
  execute(binding, backend as NodeBackend, `${OP}CacheAppend`, call, inputs as TensorInfo[], 0);
  return [k, v].map(({dataId, shape, dtype}) => {
    backend.incRef(dataId);
    return {dataId, shape, dtype};
  });
}
