import * as tf from '@tensorflow/tfjs';

/** Milliseconds of one run: the median of several batches of runs, and how far the batches lie apart. */
export interface Timing {
  medianMs: number;
  /** (slowest − fastest) / median of the batches. */
  spread: number;
  batches: number;
  runsPerBatch: number;
}

export interface TimingOptions {
  /** GPUs idle at a fraction of their clock: this much work right before measuring. */
  warmUpMs?: number;
  batchMs?: number;
  batches?: number;
}

/** Waits until the device has computed `tensor`, reading back one element of it. */
async function finish(tensor: tf.Tensor): Promise<void> {
  const one = tf.tidy(() => tf.slice(tf.reshape(tensor, [-1]), 0, 1));
  await one.data();
  one.dispose();
}

/**
 * Times `run`, which is called with 0, 1, 2, … so that it can rotate its inputs, and whose result is disposed of.
 * Runs are queued one after the other and waited for once a batch, as a training loop does.
 */
export async function time(run: (n: number) => tf.Tensor|tf.Tensor[], options: TimingOptions = {}): Promise<Timing> {
  const {warmUpMs = 300, batchMs = 100, batches = 5} = options;
  let n = 0;
  const batch = async (runs: number): Promise<number> => {
    const start = performance.now();
    for (let r = 0; r < runs; r++) {
      const result = run(n++);
      if (r === runs - 1) {
        await finish(Array.isArray(result) ? result[result.length - 1] : result);
      }
      tf.dispose(result);
    }
    return performance.now() - start;
  };
  await batch(1); // compiles
  const once = await batch(1);
  const runs = Math.max(1, Math.min(500, Math.round(batchMs / once)));
  const start = performance.now();
  while (performance.now() - start < warmUpMs) {
    await batch(runs);
  }
  const samples: number[] = [];
  for (let b = 0; b < batches; b++) {
    samples.push(await batch(runs) / runs);
  }
  samples.sort((a, b) => a - b);
  const medianMs = samples[samples.length >> 1];
  return {medianMs, spread: (samples[samples.length - 1] - samples[0]) / medianMs, batches, runsPerBatch: runs};
}

/** The part of tfjs' WebGPU buffer manager that tells how much memory is in use. */
interface BufferManager {
  numBytesUsed: number;
  acquireBuffer(...args: unknown[]): unknown;
}

/**
 * Largest number of bytes in use at any moment of `run`, above what was in use before: GPU buffers on WebGPU
 * (workspaces included), tensors elsewhere.
 */
export async function peakBytes(run: () => tf.Tensor|tf.Tensor[]): Promise<number> {
  const manager = (tf.backend() as unknown as {bufferManager?: BufferManager}).bufferManager;
  if (!manager) {
    const before = tf.memory().numBytes;
    const profile = await tf.profile(() => run() as tf.TensorContainer);
    tf.dispose(profile.result);
    return profile.peakBytes - before;
  }
  const before = manager.numBytesUsed;
  let peak = before;
  const acquire = manager.acquireBuffer;
  manager.acquireBuffer = (...args) => {
    const buffer = acquire.apply(manager, args);
    peak = Math.max(peak, manager.numBytesUsed);
    return buffer;
  };
  const result = run();
  await finish(Array.isArray(result) ? result[result.length - 1] : result);
  tf.dispose(result);
  manager.acquireBuffer = acquire;
  return peak - before;
}
