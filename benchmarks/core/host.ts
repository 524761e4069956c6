import * as tf from '@tensorflow/tfjs';

import {median} from '../../examples/gpt/measure.js';

import {flash, standardAttention} from './attention_kinds.js';
import {spreadNumbers} from './inputs.js';
import type {HostMeasurement} from './measurements.js';
import type {HostRow, Pass} from './results.js';
import {finish} from './timing.js';
import type {Run} from './timing.js';
import {withVariant} from './variants.js';

/** So small that the GPU is done before the host has asked for the next. */
const SHAPE: [number, number, number, number] = [1, 2, 64, 64];
/** The same, but enough work for float16 to be by subgroup matrices. */
const HALF_SHAPE: [number, number, number, number] = [1, 16, 256, 64];
/** On a CPU the call itself computes: as little as there can be. */
const CPU_SHAPE: [number, number, number, number] = [1, 2, 2, 16];

/** GPU buffers that tfjs' WebGPU backend holds, in use or free; 0 on other backends. */
function bufferCount(): number {
  const {bufferManager} = tf.backend() as unknown as {
    bufferManager?: {numUsedBuffers: number, numFreeBuffers: number},
  };
  return bufferManager ? bufferManager.numUsedBuffers + bufferManager.numFreeBuffers : 0;
}

/** What `calls` calls take on the host. What they queued is waited for afterwards, off the clock. */
async function batchMicroseconds(run: Run, calls: number): Promise<number> {
  const start = performance.now();
  for (let n = 0; n < calls - 1; n++) {
    tf.dispose(run(n));
  }
  const last = run(calls - 1);
  const elapsed = performance.now() - start;
  await finish(last);
  tf.dispose(last);
  return 1000 * elapsed / calls;
}

/** @param heapBytes collects garbage and gives the bytes of JavaScript heap in use, where that is possible. */
export async function measureHost(
    m: HostMeasurement, emit: (row: HostRow) => void, heapBytes?: () => number): Promise<void> {
  const {kind, variant, batches, callsPerBatch, backend, native} = m;
  const isHalf = variant.computeType === 'float16' || variant.computeType === 'bfloat16';
  const shape = 'device' in tf.backend() ? (isHalf ? HALF_SHAPE : SHAPE) : CPU_SHAPE;
  const [q, k, v, dO] = [0, 1, 2, 3].map(seed => spreadNumbers(shape, seed));
  const attention = kind === 'flash' ? flash(true, variant) : standardAttention();
  const forward: Run = () => attention(q, k, v);
  const step: Run = () => tf.tidy(() => tf.grads(attention as (...x: tf.Tensor[]) => tf.Tensor)([q, k, v], dO));
  try {
    await withVariant(variant, async () => {
      for (const [pass, run] of [['forward', forward], ['forward+backward', step]] as Array<[Pass, Run]>) {
        // Until the JavaScript is compiled, and pools and caches have what they need.
        for (let n = 0; n < batches; n++) {
          await batchMicroseconds(run, callsPerBatch);
        }
        const calls = batches * callsPerBatch;
        const before = {tensors: tf.memory().numTensors, buffers: bufferCount(), heap: heapBytes?.()};
        const samples: number[] = [];
        for (let n = 0; n < batches; n++) {
          samples.push(await batchMicroseconds(run, callsPerBatch));
        }
        const heap = heapBytes?.();
        emit({
          kind, pass, backend, native, computeType: variant.computeType, plan: variant.plan,
          medianMicroseconds: median(samples),
          leastMicroseconds: Math.min(...samples), batches, callsPerBatch,
          tensorsPerCall: (tf.memory().numTensors - before.tensors) / calls,
          buffersPerCall: (bufferCount() - before.buffers) / calls,
          heapBytesPerCall: heap === undefined ? undefined : (heap - before.heap!) / calls,
        });
      }
    });
  } finally {
    tf.dispose([q, k, v, dO]);
  }
}
