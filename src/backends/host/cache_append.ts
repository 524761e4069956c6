import type {KernelBackend, TensorInfo} from '@tensorflow/tfjs-core';

import {appendCall} from '../../op/kernels.js';
import type {AppendAttrs} from '../../op/kernels.js';
import {rowShape, rowStrides} from '../../op/problem.js';
import type {Problem, RowTensor} from '../../op/problem.js';

import {sequencesOf} from './sequences.js';
import {rowStart} from './tiles.js';
import type {Pages, View} from './tiles.js';

/** A tensor's values in the memory that the backend itself computes on, where it has such a thing. */
function ownMemory(backendName: string, backend: KernelBackend, tensor: TensorInfo): Float32Array|undefined {
  switch (backendName) {
    case 'cpu':
      return backend.readSync(tensor.dataId) as Float32Array;
    case 'wasm':
      return (backend as KernelBackend&{typedArrayFromHeap(tensor: TensorInfo): Float32Array})
          .typedArrayFromHeap(tensor);
    default:
      return undefined;
  }
}

function copyRows(problem: Problem, from: View, into: View, sequenceValues: Int32Array) {
  const sequences = sequencesOf(problem, sequenceValues);
  sequences.forEach(({queries, keyFirst, keys, keyBatch}, b) => {
    for (let n = 0; n < Math.min(queries, keys); n++) {
      for (let h = 0; h < problem.keyHeads; h++) {
        const source = rowStart(from, b, n, h);
        into.data.set(from.data.subarray(source, source + from.size), rowStart(into, keyBatch, keyFirst + n, h));
      }
    }
  });
}

/** The kernel behind op/variants/cache_append for a backend by its name. */
export function appendKernel(
    backendName: string, inputs: unknown, attrs: AppendAttrs, backend: KernelBackend): TensorInfo[] {
  const {tensors, problem} = appendCall(inputs, attrs);
  const integers = (info: TensorInfo) => Int32Array.from(backend.readSync(info.dataId) as Int32Array);
  const {blockTable} = tensors;
  const pages: Pages|undefined = blockTable && {
    table: integers(blockTable), perSequence: blockTable.shape[1], size: problem.pageSize, count: problem.keyBatches,
  };
  const view = (name: RowTensor, data: Float32Array, inPages?: Pages): View =>
      ({data, strides: rowStrides(problem, name), size: rowShape(problem, name).at(-1)!, pages: inPages});
  const sequences = integers(tensors.sequences);
  return ([['k', 'q', tensors.newK], ['v', 'output', tensors.newV]] as const).map(([cache, rows, source]) => {
    const tensor = tensors[cache];
    const own = ownMemory(backendName, backend, tensor);
    if (!own && attrs.inPlace) {
      throw new Error(
          `flashAttention: the backend ${backendName} cannot write into the tensor of a cache; use KvCache, which ` +
          'works on every backend');
    }
    const values = own ?? Float32Array.from(backend.readSync(tensor.dataId) as Float32Array);
    copyRows(
        problem, view(rows, backend.readSync(source.dataId) as Float32Array), view(cache, values, pages), sequences);
    if (own) {
      backend.incRef(tensor.dataId);
      return {dataId: tensor.dataId, shape: tensor.shape, dtype: tensor.dtype};
    }
    return {dataId: backend.write(values, tensor.shape, 'float32'), shape: tensor.shape, dtype: tensor.dtype};
  });
}
