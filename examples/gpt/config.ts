import type {AttentionKind} from './attention.js';

/** Everything that decides what a run computes. */
export interface RunConfig {
  readonly attention: AttentionKind;
  readonly steps: number;
  readonly context: number;
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
  /** Windows of text in one step. */
  readonly batch: number;
  /** The highest of the schedule. */
  readonly learningRate: number;
  readonly seed: number;
}

/**
 * The best of those tried that leave room under 5 minutes on a machine half as fast: validation loss 1.87 after 2
 * minutes on wasm (AMD EPYC, 2026-11-23). With as many tokens, batches of 12 and 16 reached 1.90 and 1.93, and wider
 * or deeper models learned less in the same time.
 */
const CPU_DEFAULTS: RunConfig = {
  attention: 'flash', steps: 1500, context: 64, layers: 2, heads: 4, width: 64, batch: 8, learningRate: 1e-2, seed: 1,
};
/** A step is bound by how fast tfjs can dispatch kernels, hence long windows and a wider model. */
const GPU_DEFAULTS: RunConfig = {
  attention: 'flash', steps: 1500, context: 512, layers: 6, heads: 4, width: 256, batch: 8, learningRate: 2e-3, seed: 1,
};

/** Sizes that suit a backend. A GPU that is emulated on the CPU counts as a CPU. */
export function defaultConfig(onGpu: boolean): RunConfig {
  return onGpu ? GPU_DEFAULTS : CPU_DEFAULTS;
}

/** Sizes for the page: a browser shares its GPU with the desktop, and some have none but SwiftShader. */
export function browserConfig(onGpu: boolean): RunConfig {
  return onGpu ? {...GPU_DEFAULTS, steps: 1000, layers: 4, width: 192, heads: 6, batch: 16} :
                 {...CPU_DEFAULTS, steps: 200, batch: 4};
}

/** What is wrong with a configuration, in words; undefined when nothing is. */
export function problemWith({width, heads}: RunConfig): string|undefined {
  if (width % heads !== 0) {
    return `expected a width that divides evenly among the heads, received width ${width} with ${heads} heads`;
  }
  if (width / heads > 256) {
    return `expected at most 256 for width / heads, received ${width / heads}`;
  }
  return undefined;
}
