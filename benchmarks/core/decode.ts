import * as tf from '@tensorflow/tfjs';

import {emptyPool} from '../../examples/gpt/measure.js';
import {flashAttention, flashAttentionWithKvCache} from '../../src/index.js';

import {standardAttention} from './attention_kinds.js';
import {bindingProblem, rotations, spreadNumbers} from './inputs.js';
import type {CopyMeasurement, DecodeMeasurement} from './measurements.js';
import {NotMeasured} from './not_measured.js';
import type {DecodeRow} from './results.js';
import {gpuTime, time, timeBatches} from './timing.js';
import type {Run} from './timing.js';
import {tolerance, withVariant} from './variants.js';
import {lastHead} from './verify.js';
import {outputError} from './verify_rows.js';

/** More than the caches of GPUs hold: a model has many layers, and none finds its keys in the cache. */
const CACHE_BYTES = 256 * 2 ** 20;
const MOST_SETS = 16;

type Cache = readonly [tf.Tensor4D, tf.Tensor4D];

/** One query over a cache. Keys and values lie as in a cache for this package, heads first for tfjs' own ops. */
export async function measureDecode(m: DecodeMeasurement, emit: (row: DecodeRow) => void): Promise<void> {
  const {kind, variant, keys, queryHeads, keyHeads, headSize, numSplits, layout, backend, native} = m;
  const problem = bindingProblem('a tensor of keys', 4 * keyHeads * keys * headSize);
  if (problem) {
    throw new NotMeasured(problem);
  }
  const bytes = 4 * 2 * keyHeads * keys * headSize;
  const isFlash = kind === 'flash';
  const shape: [number, number, number, number] =
      isRows(m) ? [1, keys, keyHeads, headSize] : [1, keyHeads, keys, headSize];
  const caches = Array.from({length: rotations(bytes, CACHE_BYTES, MOST_SETS)}, (_, n): Cache =>
      [spreadNumbers(shape, 2 * n + 1), spreadNumbers(shape, 2 * n + 2)]);
  // Query heads that share a key head are rows of one matrix to tfjs' matMul, so that nothing is repeated.
  const group = queryHeads / keyHeads;
  const query = spreadNumbers([1, keyHeads, group, headSize], 0);
  const rowQuery = tf.reshape(query, [1, 1, queryHeads, headSize]) as tf.Tensor4D;
  const headQuery = tf.reshape(query, [1, queryHeads, 1, headSize]) as tf.Tensor4D;
  const standard = standardAttention();
  const {computeType} = variant;
  const run = (n: number): tf.Tensor4D => {
    const [k, v] = caches[n % caches.length];
    if (kind === 'read') {
      return tf.tidy(() => tf.add(tf.sum(k), tf.sum(v)) as tf.Tensor) as tf.Tensor4D;
    }
    if (isFlash && layout === 'bhnd') {
      return flashAttention(headQuery, k, v, {layout, computeType});
    }
    return isFlash ? flashAttentionWithKvCache(rowQuery, k, v, {cacheLengths: keys, numSplits, computeType}) :
                     standard(query, k, v);
  };
  try {
    await withVariant(variant, async () => {
      const error = kind === 'read' ? undefined : await decodeError(m, query, caches[0], run);
      const timing = await time(run as Run);
      emit({
        kind, backend, native, layout, how: kind === 'read' ? 'sum' : undefined,
        keys, queryHeads, keyHeads, headSize, numSplits, computeType, plan: variant.plan, ...timing,
        gpuMs: await gpuTime(run as Run), gigabytesPerSecond: bytes / timing.medianMs / 1e6, error,
      });
    });
  } finally {
    tf.dispose([query, rowQuery, headQuery, ...caches.flat()]);
    await emptyPool();
  }
}

/** Whether the cache is [B,N,H,D]. */
const isRows = ({kind, layout}: DecodeMeasurement): boolean => kind === 'flash' && layout !== 'bhnd';

async function decodeError(
    m: DecodeMeasurement, query: tf.Tensor4D, [k, v]: Cache,
    run: (n: number) => tf.Tensor4D): Promise<number> {
  const {variant, keys, keyHeads, queryHeads, headSize} = m;
  const group = queryHeads / keyHeads;
  const [output, headsFirstK, headsFirstV] = tf.tidy(() => [
    tf.reshape(run(0), [1, keyHeads, group, headSize]),
    ...[k, v].map(x => isRows(m) ? tf.slice(x, [0, 0, keyHeads - 1, 0], [1, keys, 1, headSize]) :
                                          tf.slice(x, [0, keyHeads - 1, 0, 0], [1, 1, keys, headSize]))
        .map(x => tf.reshape(x, [1, 1, keys, headSize])),
  ] as tf.Tensor4D[]);
  const error = await outputError({
    q: lastHead(query), k: lastHead(headsFirstK), v: lastHead(headsFirstV), output: lastHead(output), queries: group,
    keys, causal: false,
  });
  tf.dispose([output, headsFirstK, headsFirstV]);
  if (!(error <= tolerance(variant))) {
    throw new Error(`wrong results: relative error ${error}`);
  }
  return error;
}

/** Copies from one buffer to another, as the bandwidth that there is to reach. */
export async function measureCopy({bytes}: CopyMeasurement, emit: (row: DecodeRow) => void): Promise<void> {
  const {device} = tf.backend() as unknown as {device?: GPUDevice};
  if (!device) {
    throw new NotMeasured('there are no WebGPU buffers to copy');
  }
  const size = Math.min(bytes, Math.floor(device.limits.maxBufferSize / 4) * 4);
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffers = [device.createBuffer({size, usage}), device.createBuffer({size, usage})];
  try {
    const timing = await timeBatches(async copies => {
      const start = performance.now();
      const encoder = device.createCommandEncoder();
      for (let n = 0; n < copies; n++) {
        encoder.copyBufferToBuffer(buffers[n % 2], 0, buffers[(n + 1) % 2], 0, size);
      }
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      return performance.now() - start;
    });
    emit({
      kind: 'copy', keys: 0, queryHeads: 0, keyHeads: 0, headSize: 0, numSplits: 0, ...timing,
      gigabytesPerSecond: 2 * size / timing.medianMs / 1e6,
    });
  } finally {
    buffers.forEach(buffer => buffer.destroy());
  }
}
