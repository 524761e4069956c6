import {invalid} from '../../op/options.js';

import type {CudaReport, NativeBinding, NativeCalls} from './binding.js';
import {nativeAddon} from './load.js';

/** What is there of the native addon. */
export interface NativeReport {
  /** Whether it loads; where it does not, the TypeScript kernel serves in its place. */
  readonly loaded: boolean;
  /** Its file. */
  readonly path?: string;
  /** What its kernels are written in: 'avx512', 'avx2' or 'portable', the best that this CPU has. */
  readonly instructionSet?: string;
  /** Threads that a call may use. */
  readonly threads?: number;
  /** Calls that ran in this process so far, and who made and computed them. */
  readonly calls?: NativeCalls;
  /** Where calls on the host's memory compute: see {@link setNativeDevice}. */
  readonly device?: NativeDevice;
  /** What there is of CUDA. Looked for when it is first read: that opens the driver. */
  readonly cuda?: CudaReport;
  /** Where it does not load: every cause, and what to do. */
  readonly problem?: string;
}

/**
 * The native addon, which serves the backends `cpu`, `wasm` and `tensorflow` in Node. Loads it where no call did yet;
 * never throws. The environment has a say: `FLASH_ATTENTION_ADDON` names its file, `FLASH_ATTENTION_NATIVE=off` leaves
 * it out, `FLASH_ATTENTION_THREADS` is the number of threads to begin with.
 *
 * ```js
 * import {nativeReport} from 'tfjs-flash-attention/node';
 * const {loaded, problem, instructionSet, threads} = nativeReport();
 * ```
 */
export function nativeReport(): NativeReport {
  const {binding, path, problem} = nativeAddon();
  return binding ?
      {
        loaded: true, path, instructionSet: binding.instructionSet(), threads: binding.threads(),
        calls: binding.calls(), device: binding.device() as NativeDevice,
        get cuda() {
          return binding.cuda();
        },
      } :
      {loaded: false, problem: problem!.message};
}

/**
 * How many threads a call of the native addon may use from now on, in the whole process (workers too).
 * @param count from 1 to 1024, or 0 for as many as there are CPUs for this process, the default.
 * @throws where the addon does not load, with every cause, and `flashAttention: expected … for threads`.
 */
export function setNativeThreads(count: number): void {
  loadedAddon().setThreads(count);
}

/** Where the addon computes: the CPU, the first CUDA device that it has kernels for, or the one of that number. */
export type NativeDevice = 'cpu'|'cuda'|`cuda:${number}`;

export interface NativeDeviceOptions {
  /**
   * What a call does when the device is lost, busy or full: give an 'error' (the default), or compute on the 'cpu',
   * which is said once on the console and counted by `nativeReport().calls.inPlaceOfCuda`.
   */
  fallback?: 'error'|'cpu';
}

/**
 * Where the native addon computes calls on the backends `cpu`, `wasm` and `tensorflow` (as far as its tensors are in
 * the host's memory) from now on, in the whole process (workers too). 'cpu' is the default. With 'cuda' a call's
 * tensors are copied to the device and its results back, in pieces where the device has not the memory for all at
 * once; so it is worth it for long sequences. `computeType` then says how precisely it computes. Calls on TensorFlow's
 * own GPU do not follow this: they compute where their tensors are.
 *
 * ```js
 * import {nativeReport, setNativeDevice} from 'tfjs-flash-attention/node';
 * if (!nativeReport().cuda?.problem) {
 *   setNativeDevice('cuda', {fallback: 'cpu'});
 * }
 * ```
 * @param device 'cpu', 'cuda' or 'cuda:1' (…), as `nativeReport().cuda.devices` numbers them
 * @throws `flashAttention: expected … for device, received …` where there is no such device, and why; and where the
 *     addon does not load, with every cause.
 */
export function setNativeDevice(device: NativeDevice, {fallback = 'error'}: NativeDeviceOptions = {}): void {
  if (typeof device !== 'string') {
    throw invalid('\'cpu\', \'cuda\' or \'cuda:<number>\'', 'device', device);
  }
  if (fallback !== 'error' && fallback !== 'cpu') {
    throw invalid('\'error\' or \'cpu\'', 'fallback', fallback);
  }
  loadedAddon().setDevice(device, fallback === 'cpu');
}

function loadedAddon(): NativeBinding {
  const {binding, problem} = nativeAddon();
  if (!binding) {
    throw new Error(problem!.message);
  }
  return binding;
}
