import * as tf from '@tensorflow/tfjs';

/** Waits until the device has computed a tensor, by reading one of its elements. */
export async function finished(tensor: tf.Tensor): Promise<void> {
  const element = tf.tidy(() => tf.slice(tf.reshape(tensor, [-1]), 0, 1));
  await element.data();
  element.dispose();
}

/** Milliseconds from the call to the end of the computation. */
export async function timeOf(run: () => tf.Tensor[]): Promise<number> {
  const start = performance.now();
  const results = run();
  await finished(results[results.length - 1]);
  const elapsed = performance.now() - start;
  tf.dispose(results);
  return elapsed;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** A GPU that idles takes this long to reach its full clock; a CPU's JavaScript to be compiled. */
const WARM_UP_MS = 250;
const TIMED_MS = 250;
const RUNS_AT_LEAST = 3;

/** Median time of a computation that has run before. What takes long is warmed up once and timed three times. */
export async function medianTime(run: () => tf.Tensor[]): Promise<number> {
  const start = performance.now();
  while (performance.now() - start < WARM_UP_MS) {
    await timeOf(run);
  }
  const times: number[] = [];
  const timedFrom = performance.now();
  while (times.length < RUNS_AT_LEAST || performance.now() - timedFrom < TIMED_MS) {
    times.push(await timeOf(run));
  }
  return median(times);
}

/** The buffer pool of tfjs' WebGPU backend; `freeBuffers` is private in TypeScript only. Checked with tfjs 4.22. */
interface BufferPool {
  numBytesAllocated: number;
  numFreeBuffers: number;
  freeBuffers: Map<string, GPUBuffer[]>;
}

interface PooledBackend {
  bufferManager: BufferPool;
  device: GPUDevice;
  queue: GPUQueue;
}

function poolOf(backend: unknown): BufferPool|undefined {
  return (backend as Partial<PooledBackend>).bufferManager;
}

/** What {@link peakBytes} counts on the current backend. */
export function memoryKind(): string {
  return poolOf(tf.backend()) ? 'GPU memory that the WebGPU backend allocates' :
                                'bytes in tensors (tf.profile), without the scratch memory of a kernel';
}

/** Bytes of GPU memory that the WebGPU backend holds, or of tensors on any other. */
export function bytesInUse(): number {
  return poolOf(tf.backend())?.numBytesAllocated ?? tf.memory().numBytes;
}

/** The largest tensor that the current backend can hold, as far as it says. */
export function largestTensorBytes(): number {
  const {device} = tf.backend() as Partial<PooledBackend>;
  return device ? Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize) : Infinity;
}

/**
 * Destroys the buffers that the WebGPU backend keeps for reuse, so that what is allocated next is what is needed next.
 * Does nothing on other backends.
 */
export async function emptyPool(): Promise<void> {
  const {bufferManager, queue} = tf.backend() as Partial<PooledBackend>;
  if (!bufferManager || !queue) {
    return;
  }
  await finishQueue();
  await queue.onSubmittedWorkDone();
  for (const buffers of bufferManager.freeBuffers.values()) {
    for (const buffer of buffers.splice(0)) {
      bufferManager.numBytesAllocated -= buffer.size;
      bufferManager.numFreeBuffers--;
      buffer.destroy();
    }
  }
}

/** The most memory that a computation needs beyond what was in use before it. */
export async function peakBytes(run: () => tf.Tensor[]): Promise<number> {
  const pool = poolOf(tf.backend());
  if (pool) {
    await emptyPool();
    const before = pool.numBytesAllocated;
    await timeOf(run);
    return pool.numBytesAllocated - before;
  }
  const before = tf.memory().numBytes;
  const {peakBytes: peak} = await tf.profile(() => {
    tf.dispose(run());
    return [] as unknown as tf.TensorContainer;
  });
  return peak - before;
}

async function finishQueue(): Promise<void> {
  const probe = tf.zeros([1]);
  const sum = tf.add(probe, 1);
  await sum.data();
  tf.dispose([probe, sum]);
}
