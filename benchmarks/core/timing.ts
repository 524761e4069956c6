import * as tf from '@tensorflow/tfjs';

import {median} from '../../examples/gpt/measure.js';

/** Milliseconds of one run by the clock on the wall: median of several batches of runs, and how far they lie apart. */
export interface Timing {
  medianMs: number;
  /** Of the fastest batch, where it is noted: what else a machine does only ever adds. */
  leastMs?: number;
  /** (slowest − fastest) / median of the batches. */
  spread: number;
  batches: number;
  runsPerBatch: number;
}

export interface TimingOptions {
  /**
   * GPUs idle at a fraction of their clock, and JavaScript is compiled for good after a thousand calls or two: so long
   * right before measuring.
   */
  warmUpMs?: number;
  batchMs?: number;
  batches?: number;
  /** No new batch after this long, once there are three. */
  mostMs?: number;
}

/** Called with 0, 1, 2, … so that it can rotate its inputs. What it gives is disposed of. */
export type Run = (n: number) => tf.Tensor|tf.Tensor[];

/** Waits until the device has computed `result`, reading back one element of the last tensor. */
export async function finish(result: tf.Tensor|tf.Tensor[]): Promise<void> {
  const last = Array.isArray(result) ? result[result.length - 1] : result;
  const one = tf.tidy(() => tf.slice(tf.reshape(last, [-1]), 0, 1));
  await one.data();
  one.dispose();
}

const MOST_RUNS = 2000;

/** Median and spread of what `batch(runs)`, in milliseconds, takes a run. */
export async function timeBatches(
    batch: (runs: number) => Promise<number>, options: TimingOptions = {}): Promise<Timing> {
  const {warmUpMs = 500, batchMs = 80, batches = 9, mostMs = 3000} = options;
  const runsFor = (ms: number) => Math.max(1, Math.min(MOST_RUNS, Math.round(batchMs / ms)));
  await batch(1); // compiles
  const once = await batch(1);
  let runs = runsFor(once);
  const start = performance.now();
  while (once < warmUpMs && performance.now() - start < warmUpMs) { // a longer run was work enough
    runs = runsFor(await batch(runs) / runs); // one run alone is mostly waiting for the news that it is done
  }
  const samples: number[] = [];
  const timedFrom = performance.now();
  while (samples.length < Math.min(3, batches) ||
         samples.length < batches && performance.now() - timedFrom < mostMs) {
    samples.push(await batch(runs) / runs);
  }
  const medianMs = median(samples);
  return {
    medianMs, leastMs: Math.min(...samples), spread: (Math.max(...samples) - Math.min(...samples)) / medianMs,
    batches: samples.length, runsPerBatch: runs,
  };
}

/** Times `run`. Runs are queued one after the other and waited for once a batch, as a training loop does. */
export async function time(run: Run, options: TimingOptions = {}): Promise<Timing> {
  let n = 0;
  return timeBatches(async runs => {
    const start = performance.now();
    for (let r = 0; r < runs; r++) {
      const result = run(n++);
      if (r === runs - 1) {
        await finish(result);
      }
      tf.dispose(result);
    }
    return performance.now() - start;
  }, options);
}

const GPU_RUNS = 5;

/**
 * Milliseconds that the kernels of one run take by the GPU's own clock, the median of several runs; undefined where the
 * device has no timestamp queries. To be called right after {@link time}, which has warmed the device up.
 */
export async function gpuTime(run: Run, runs = GPU_RUNS): Promise<number|undefined> {
  const {device} = tf.backend() as unknown as {device?: GPUDevice};
  if (!device?.features.has('timestamp-query')) {
    return undefined;
  }
  const samples: number[] = [];
  for (let n = 0; n < runs; n++) {
    const {kernelMs} = await tf.time(() => tf.dispose(run(n)));
    samples.push(kernelMs as number);
  }
  return median(samples);
}
