import {getKernel, registerKernel} from '@tensorflow/tfjs-core';
import type {KernelBackend, KernelConfig, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

import {FLASH_ATTENTION, FLASH_ATTENTION_CACHE_APPEND, FLASH_ATTENTION_GRAD} from '../../op/kernels.js';

import type {NativeBinding} from './binding.js';
import {forwardOnHost, gradientOnHost, HOST_MEMORIES} from './host_kernels.js';
import {nativeAddon} from './load.js';
import {appendOnTensorFlow, forwardOnTensorFlow, gradientOnTensorFlow, isOnGpu} from './tensorflow_kernels.js';

type Run = (binding: NativeBinding, inputs: unknown, attrs: NamedAttrMap, backend: KernelBackend) => TensorInfo[];

const onHost = (name: keyof typeof HOST_MEMORIES): Record<string, Run> => ({
  [FLASH_ATTENTION]: (binding, ...call) => forwardOnHost(binding, HOST_MEMORIES[name], ...call),
  [FLASH_ATTENTION_GRAD]: (binding, ...call) => gradientOnHost(binding, HOST_MEMORIES[name], ...call),
  // A few rows, copied within JavaScript's reach: FLASH_ATTENTION_CACHE_APPEND stays as it is.
});

const RUNS: Record<string, Record<string, Run>> = {
  cpu: onHost('cpu'),
  wasm: onHost('wasm'),
  tensorflow: {
    [FLASH_ATTENTION]: forwardOnTensorFlow,
    [FLASH_ATTENTION_GRAD]: gradientOnTensorFlow,
    [FLASH_ATTENTION_CACHE_APPEND]: appendOnTensorFlow,
  },
};

const warned = new Set<string>();

/** Of a cache in a GPU's memory TensorFlow would make a copy for a kernel on the CPU, and that would get the rows. */
const canAppend = (binding: NativeBinding, backend: unknown): boolean =>
    !isOnGpu(backend) || binding.registerTensorFlow(true);

/** Says once why a CPU computes in the place of the device that setNativeDevice chose. */
function tellNotice(binding: NativeBinding) {
  const notice = binding.takeNotice();
  if (notice !== undefined && !warned.has('cuda')) {
    warned.add('cuda');
    console.warn(`flashAttention: the CPU computes in the place of the CUDA device: ${notice}`);
  }
}

/** The addon; undefined where the TypeScript kernel serves, which is said once where somebody would miss the addon. */
function addonFor(backendName: string): NativeBinding|undefined {
  const {binding, problem} = nativeAddon();
  const {FLASH_ATTENTION_ADDON: asked, FLASH_ATTENTION_THREADS: threads} = process.env;
  const isMissed = problem?.kind === 'missing' && (backendName === 'tensorflow' || asked || threads);
  if (isMissed && !warned.has(backendName)) {
    warned.add(backendName);
    console.warn(`${problem.message}\nUntil then the slower TypeScript kernel serves the backend ${backendName}.`);
  }
  return binding;
}

/**
 * Registers the addon's kernels for the backends cpu, wasm and tensorflow, in Node. It is loaded at the first call.
 * @param fallback the kernels that serve where it does not load
 */
export function registerNativeKernels(fallback: (backendName: string) => KernelConfig[]): void {
  if (typeof process !== 'object' || typeof process.versions?.node !== 'string') {
    return;
  }
  for (const [backendName, runs] of Object.entries(RUNS)) {
    for (const config of fallback(backendName)) {
      if (getKernel(config.kernelName, backendName) != null) {
        continue; // of another copy of this package
      }
      const run = runs[config.kernelName];
      registerKernel(run === undefined ? config : {
        ...config,
        kernelFunc(parameters) {
          const binding = addonFor(backendName);
          const {inputs, attrs, backend} = parameters;
          if (!binding || (config.kernelName === FLASH_ATTENTION_CACHE_APPEND && !canAppend(binding, backend))) {
            return config.kernelFunc(parameters);
          }
          const results = run(binding, inputs, attrs!, backend as KernelBackend);
          tellNotice(binding);
          return results;
        },
      });
    }
  }
}
