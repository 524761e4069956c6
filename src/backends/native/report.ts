import type {NativeCalls} from './binding.js';
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
  /** Calls that ran in this process so far, and how many of them TensorFlow made. */
  readonly calls?: NativeCalls;
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
        calls: binding.calls(),
      } :
      {loaded: false, problem: problem!.message};
}

/**
 * How many threads a call of the native addon may use from now on, in the whole process (workers too).
 * @param count from 1 to 1024, or 0 for as many as there are CPUs for this process, the default.
 * @throws where the addon does not load, with every cause, and `flashAttention: expected … for threads`.
 */
export function setNativeThreads(count: number): void {
  const {binding, problem} = nativeAddon();
  if (!binding) {
    throw new Error(problem!.message);
  }
  binding.setThreads(count);
}
