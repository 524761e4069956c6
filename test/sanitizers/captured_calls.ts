import * as tf from '@tensorflow/tfjs';
import type {NamedAttrMap, TensorInfo} from '@tensorflow/tfjs';

import {registerHostKernels} from '../../src/backends/host/kernels.js';
import {describeCall, inNativeOrder, NATIVE_ORDER, pagesOf} from '../../src/backends/native/description.js';
import type {NativeCall} from '../../src/backends/native/description.js';
import {
  appendCall, FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD, kernelCall,
} from '../../src/op/kernels.js';
import type {
  AppendAttrs, AppendInputName, AttentionAttrs, GradAttrs, GradInputName,
} from '../../src/op/kernels.js';

type Values = Float32Array|Int32Array|Uint8Array;

/** A tensor of a call by its number in the addon's order. */
export interface CapturedTensor {
  readonly name: number;
  readonly values: Values;
}

/** What a call of the addon would be handed, and what the TypeScript kernel made of it. */
export interface CapturedCall {
  readonly kind: NativeCall['kind'];
  readonly description: Float64Array;
  readonly tensors: CapturedTensor[];
  readonly results: CapturedTensor[];
}

const APPEND_NAMES: Record<AppendInputName, GradInputName> = {
  newK: 'q', newV: 'output', k: 'k', v: 'v', sequences: 'sequences', blockTable: 'blockTable',
};

const ARRAYS = {float32: Float32Array, int32: Int32Array, bool: Uint8Array} as const;

function valuesOf({dataId, dtype}: TensorInfo): Values {
  return ARRAYS[dtype as keyof typeof ARRAYS].from(tf.backend().readSync(dataId) as Float32Array);
}

/** The call behind a kernel's inputs and attributes, and the names of its results. */
function describe(kernelName: string, inputs: TensorInfo[], attrs: NamedAttrMap) {
  let call: NativeCall;
  let results: GradInputName[];
  if (kernelName === FLASH_ATTENTION) {
    const {inputNames: names} = attrs as unknown as AttentionAttrs;
    const {tensors: {blockTable}, problem, seed} = kernelCall(inputs, attrs as unknown as AttentionAttrs);
    call = {kind: 'forward', problem, seed, names, pagesPerSequence: pagesOf(blockTable)};
    results = ['output', 'lse', 'lseTail'];
  } else if (kernelName === FLASH_ATTENTION_GRAD) {
    const {inputNames: names, wanted} = attrs as unknown as GradAttrs;
    const {problem, seed} = kernelCall<GradInputName>(inputs, attrs as unknown as GradAttrs);
    call = {kind: 'backward', problem, seed, names, pagesPerSequence: 0, wanted};
    results = [...wanted];
  } else {
    const append = attrs as unknown as AppendAttrs;
    const {tensors: {blockTable}, problem} = appendCall(inputs, append);
    const names = append.inputNames.map(name => APPEND_NAMES[name]);
    call = {kind: 'append', problem, seed: 0, names, pagesPerSequence: pagesOf(blockTable)};
    results = ['k', 'v'];
  }
  return {call, results};
}

/** Runs `f` on the backend cpu with the TypeScript kernel, and gives the calls that it makes of our kernels. */
export async function captureCalls(f: () => unknown): Promise<CapturedCall[]> {
  await tf.setBackend('cpu');
  const calls: CapturedCall[] = [];
  const kernels = [FLASH_ATTENTION, FLASH_ATTENTION_GRAD, FLASH_ATTENTION_CACHE_APPEND];
  const replace = (register: () => void) => {
    kernels.filter(name => tf.getKernel(name, 'cpu')).forEach(name => tf.unregisterKernel(name, 'cpu'));
    register();
  };
  replace(() => registerHostKernels('cpu'));
  const configs = kernels.map(name => tf.getKernel(name, 'cpu'));
  replace(() => configs.forEach(config => tf.registerKernel({
    ...config,
    kernelFunc(parameters) {
      const inputs = parameters.inputs as unknown as TensorInfo[];
      const {call, results: names} = describe(config.kernelName, inputs, parameters.attrs!);
      const numbered = (name: GradInputName, values: Values) => ({name: NATIVE_ORDER.indexOf(name), values});
      // Before the kernel runs: that of caches writes into its inputs.
      const tensors = inNativeOrder(call.names)
          .map(name => numbered(name, valuesOf(inputs[call.names.indexOf(name)])));
      const made = config.kernelFunc(parameters) as TensorInfo[];
      const results = inNativeOrder(names).map(name => numbered(name, valuesOf(made[names.indexOf(name)])));
      calls.push({kind: call.kind, description: describeCall(call), tensors, results});
      return made;
    },
  })));
  try {
    await f();
  } finally {
    replace(() => registerHostKernels('cpu'));
  }
  return calls;
}
