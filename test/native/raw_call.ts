import type {HostArray, NativeBinding} from '../../src/backends/native/binding.js';
import {describeCall} from '../../src/backends/native/description.js';
import {nativeAddon} from '../../src/backends/native/load.js';
import type {AttentionInputName, GradInputName} from '../../src/op/kernels.js';
import {lseShape, makeProblem, rowShape} from '../../src/op/problem.js';
import type {CallOptions, Shapes} from '../../src/op/problem.js';
import {Random} from '../support/random.js';

export function addon(): NativeBinding {
  const {binding, problem} = nativeAddon();
  if (!binding) {
    throw new Error(problem!.message);
  }
  return binding;
}

const OPTIONS: CallOptions = {
  layout: 'bnhd', causalAlignment: 'bottom-right', windowLeft: -1, windowRight: 0, softmaxScale: 0.25, softcap: 0,
  dropoutP: 0, seed: 0, computeType: 'float32', deterministic: true,
};

/** What the addon is handed: a call as the package would make it, to be spoilt by specs. */
export interface RawCall {
  description: Float64Array;
  tensors: HostArray[];
  results: Float32Array[];
}

const size = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

/** Forward, or the gradients of q, k, v and the bias. */
export function rawCall(kind: 'forward'|'backward', options: Partial<CallOptions> = {}): RawCall {
  const shapes: Shapes = {
    q: {shape: [2, 5, 4, 8]}, k: {shape: [2, 7, 2, 8]}, v: {shape: [2, 7, 2, 6]}, mask: {shape: [2, 1, 5, 7]},
    bias: {shape: [1, 4, 5, 7]}, alibiSlopes: {shape: [4]}, sinks: {shape: [4]}, sequences: {shape: [2, 5]},
  };
  const random = new Random(5);
  const problem = makeProblem(shapes, {...OPTIONS, ...options});
  const forwardNames = Object.keys(shapes) as AttentionInputName[];
  const values: Partial<Record<GradInputName, HostArray>> = {
    mask: Uint8Array.from({length: 70}, (_, n) => Number(n % 5 !== 0)),
    sequences: Int32Array.from([0, 5, 0, 7, 0, 0, 4, 1, 6, 1]),
  };
  const all: Array<[GradInputName, readonly number[]]> =
      forwardNames.map(name => [name, shapes[name]!.shape]);
  if (kind === 'backward') {
    const [output, lse] = [rowShape(problem, 'output'), lseShape(problem)];
    all.push(['output', output], ['lse', lse], ['lseTail', lse], ['dOutput', output], ['dLse', lse]);
  }
  return {
    description: describeCall({
      kind, problem, seed: 2 ** 40 + 3, names: all.map(([name]) => name), pagesPerSequence: 0,
      wanted: kind === 'backward' ? ['q', 'k', 'v', 'bias'] : [],
    }),
    tensors: all.map(([name, shape]) => values[name] ?? Float32Array.from(random.normals(size(shape)))),
    results: kind === 'forward' ?
        [rowShape(problem, 'output'), lseShape(problem), lseShape(problem)].map(s => new Float32Array(size(s))) :
        (['q', 'k', 'v', 'bias'] as const).map(name => new Float32Array(size(shapes[name]!.shape))),
  };
}

export function runRaw({description, tensors, results}: RawCall): Float32Array[] {
  addon().run(description, tensors, results);
  return results;
}
