import {registerKernel, util} from '@tensorflow/tfjs-core';
import type {DataType, KernelBackend, KernelConfig, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION, FLASH_ATTENTION_GRAD, kernelCall} from '../../op/kernels.js';
import type {AttentionAttrs, GradAttrs, WantedGradient} from '../../op/kernels.js';
import {
  keyShape, keyStrides, lseShape, outputShape, outputStrides, queryShape, queryStrides, valueShape, valueStrides,
} from '../../op/problem.js';
import type {Problem, Strides} from '../../op/problem.js';

import {attentionBackward} from './backward.js';
import {attentionForward} from './forward.js';
import type {View} from './tiles.js';

/** What every tfjs backend offers: reading values synchronously and writing new ones. */
type HostBackend = KernelBackend;

function read(backend: HostBackend, info: TensorInfo): Float32Array {
  return backend.readSync(info.dataId) as Float32Array;
}

function readMask(backend: HostBackend, info: TensorInfo|undefined): Uint8Array|undefined {
  if (!info) {
    return undefined;
  }
  const values = backend.readSync(info.dataId);
  return values instanceof Uint8Array ? values : Uint8Array.from(values as ArrayLike<number>);
}

function write(backend: HostBackend, values: Float32Array, shape: number[], dtype: DataType = 'float32'): TensorInfo {
  return {dataId: backend.write(values, shape, dtype), shape, dtype};
}

const layoutOf: Record<WantedGradient|'output', {shape(p: Problem): number[], strides(p: Problem): Strides}> = {
  q: {shape: queryShape, strides: queryStrides},
  k: {shape: keyShape, strides: keyStrides},
  v: {shape: valueShape, strides: valueStrides},
  output: {shape: outputShape, strides: outputStrides},
};

function view(problem: Problem, name: keyof typeof layoutOf, data: Float32Array): View {
  const shape = layoutOf[name].shape(problem);
  return {data, strides: layoutOf[name].strides(problem), size: shape[3]};
}

function empty(problem: Problem, name: keyof typeof layoutOf): View {
  return view(problem, name, new Float32Array(util.sizeFromShape(layoutOf[name].shape(problem))));
}

function forwardKernel(inputs: unknown, attrs: NamedAttrMap, backend: HostBackend): TensorInfo[] {
  const {tensors, problem} = kernelCall(inputs, attrs as unknown as AttentionAttrs);
  const output = empty(problem, 'output');
  const lse = new Float32Array(util.sizeFromShape(lseShape(problem)));
  const lseTail = new Float32Array(lse.length);
  attentionForward(
      problem, view(problem, 'q', read(backend, tensors.q)), view(problem, 'k', read(backend, tensors.k)),
      view(problem, 'v', read(backend, tensors.v)), readMask(backend, tensors.mask), output, lse, lseTail);
  return [
    write(backend, output.data, outputShape(problem)), write(backend, lse, lseShape(problem)),
    write(backend, lseTail, lseShape(problem)),
  ];
}

function gradKernel(inputs: unknown, attrs: NamedAttrMap, backend: HostBackend): TensorInfo[] {
  const {wanted} = attrs as unknown as GradAttrs;
  const {tensors, problem} = kernelCall(inputs, attrs as unknown as GradAttrs);
  const gradients: Partial<Record<WantedGradient, View>> = {};
  for (const name of wanted) {
    gradients[name] = empty(problem, name);
  }
  const saved = {
    q: view(problem, 'q', read(backend, tensors.q)),
    k: view(problem, 'k', read(backend, tensors.k)),
    v: view(problem, 'v', read(backend, tensors.v)),
    mask: readMask(backend, tensors.mask),
    output: view(problem, 'output', read(backend, tensors.output!)),
    lse: read(backend, tensors.lse!),
    lseTail: read(backend, tensors.lseTail!),
  };
  const dLse = tensors.dLse && read(backend, tensors.dLse);
  attentionBackward(problem, saved, view(problem, 'output', read(backend, tensors.dOutput!)), dLse, gradients);
  return wanted.map(name => write(backend, gradients[name]!.data, layoutOf[name].shape(problem)));
}

/** Registers the tiled TypeScript kernels for a backend by its name. They work on any that can be read. */
export function registerHostKernels(backendName: string): void {
  const configs: Array<[string, typeof forwardKernel]> =
      [[FLASH_ATTENTION, forwardKernel], [FLASH_ATTENTION_GRAD, gradKernel]];
  for (const [kernelName, run] of configs) {
    const config: KernelConfig = {
      kernelName,
      backendName,
      kernelFunc: ({inputs, attrs, backend}) => run(inputs, attrs!, backend as HostBackend),
    };
    registerKernel(config);
  }
}
