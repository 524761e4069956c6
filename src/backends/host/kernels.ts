import {registerKernel, util} from '@tensorflow/tfjs-core';
import type {DataType, KernelBackend, KernelConfig, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {
  FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD, kernelCall,
} from '../../op/kernels.js';
import type {
  AppendAttrs, AttentionAttrs, AttentionInputName, GradAttrs, KernelCall, WantedGradient,
} from '../../op/kernels.js';
import {lseShape, rowShape, rowStrides} from '../../op/problem.js';
import type {Problem, RowTensor} from '../../op/problem.js';

import {attentionBackward} from './backward.js';
import type {Gradients} from './backward.js';
import {appendKernel} from './cache_append.js';
import {attentionForward} from './forward.js';
import {sequencesOf} from './sequences.js';
import type {Pages, View} from './tiles.js';
import type {Extras} from './visibility.js';

/** What every tfjs backend offers: reading values synchronously and writing new ones. */
type HostBackend = KernelBackend;

function read(backend: HostBackend, info: TensorInfo): Float32Array {
  return backend.readSync(info.dataId) as Float32Array;
}

function write(backend: HostBackend, values: Float32Array, shape: number[], dtype: DataType = 'float32'): TensorInfo {
  return {dataId: backend.write(values, shape, dtype), shape, dtype};
}

function view(problem: Problem, name: RowTensor, data: Float32Array, pages?: Pages): View {
  return {data, strides: rowStrides(problem, name), size: rowShape(problem, name).at(-1)!, pages};
}

/** A call's tensors on the host. */
function readCall(backend: HostBackend, {tensors, problem, seed}: KernelCall<AttentionInputName>) {
  const optional = (info: TensorInfo|undefined) => info && read(backend, info);
  const integers = (info: TensorInfo|undefined) => info && Int32Array.from(backend.readSync(info.dataId) as Int32Array);
  const {mask, bias, alibiSlopes, sinks, sequences, blockTable} = tensors;
  const extras: Extras = {
    mask: mask && Uint8Array.from(backend.readSync(mask.dataId) as Uint8Array),
    bias: optional(bias),
    alibiSlopes: optional(alibiSlopes),
    sinks: optional(sinks),
    seed,
  };
  const pages = blockTable && {
    table: integers(blockTable)!, perSequence: blockTable.shape[1], size: problem.pageSize, count: problem.keyBatches,
  };
  return {
    q: view(problem, 'q', read(backend, tensors.q)),
    k: view(problem, 'k', read(backend, tensors.k), pages),
    v: view(problem, 'v', read(backend, tensors.v), pages),
    extras,
    sequences: sequencesOf(problem, integers(sequences)),
  };
}

function forwardKernel(inputs: unknown, attrs: NamedAttrMap, backend: HostBackend): TensorInfo[] {
  const call = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  const {problem} = call;
  const {q, k, v, extras, sequences} = readCall(backend, call);
  const shape = rowShape(problem, 'output');
  const output = new Float32Array(util.sizeFromShape(shape));
  const lse = new Float32Array(util.sizeFromShape(lseShape(problem)));
  const lseTail = new Float32Array(lse.length);
  attentionForward(problem, sequences, q, k, v, extras, view(problem, 'output', output), lse, lseTail);
  return [
    write(backend, output, shape), write(backend, lse, lseShape(problem)), write(backend, lseTail, lseShape(problem)),
  ];
}

/** Which rows of gradients lie in the gradient of an input. */
const HOLDS: Record<Exclude<WantedGradient, 'bias'>, ReadonlyArray<'q'|'k'|'v'>> = {
  q: ['q'], k: ['k'], v: ['v'], qkv: ['q', 'k', 'v'], kv: ['k', 'v'],
};

function gradKernel(inputs: unknown, attrs: NamedAttrMap, backend: HostBackend): TensorInfo[] {
  const {wanted} = attrs as unknown as GradAttrs;
  const call = kernelCall(inputs, attrs as unknown as GradAttrs);
  const {tensors, problem} = call;
  const gradients: {-readonly [name in keyof Gradients]: Gradients[name]} = {};
  const results = wanted.map(name => {
    const {shape} = tensors[name]!;
    const data = new Float32Array(util.sizeFromShape(shape));
    if (name === 'bias') {
      gradients.bias = data;
    } else {
      for (const part of HOLDS[name]) {
        gradients[part] = view(problem, part, data);
      }
    }
    return {data, shape};
  });
  const {sequences, ...rows} = readCall(backend, call);
  const saved = {
    ...rows,
    output: view(problem, 'output', read(backend, tensors.output!)),
    lse: read(backend, tensors.lse!),
    lseTail: read(backend, tensors.lseTail!),
  };
  const dLse = tensors.dLse && read(backend, tensors.dLse);
  const dOutput = view(problem, 'output', read(backend, tensors.dOutput!));
  attentionBackward(problem, sequences, saved, dOutput, dLse, gradients);
  return results.map(({data, shape}) => write(backend, data, shape));
}

/** The tiled TypeScript kernels for a backend by its name. They work on any that can be read. */
export function hostKernels(backendName: string): KernelConfig[] {
  const runs: Array<[string, typeof forwardKernel]> = [
    [FLASH_ATTENTION, forwardKernel],
    [FLASH_ATTENTION_GRAD, gradKernel],
    [
      FLASH_ATTENTION_CACHE_APPEND,
      (inputs, attrs, backend) => appendKernel(backendName, inputs, attrs as unknown as AppendAttrs, backend),
    ],
  ];
  return runs.map(([kernelName, run]) => ({
    kernelName,
    backendName,
    kernelFunc: ({inputs, attrs, backend}) => run(inputs, attrs!, backend as HostBackend),
  }));
}

export function registerHostKernels(backendName: string): void {
  hostKernels(backendName).forEach(registerKernel);
}
