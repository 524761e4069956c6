// JavaScript time of a call on the webgpu backend, in µs: tsx benchmarks/host_cost.ts [--only=<text>] [--batches=<n>]
// Dispatches are recorded with no workgroups in them, so that no emulated device competes for the cores. The least of
// many batches is what counts: other work on the machine only ever adds.
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {flashAttention, KvCache} from '../src/index.js';

import {describeEnvironment, useBackend} from './environment.js';

const CALLS = 20;
/** tfjs submits after so many dispatches: a number that no batch reaches leaves submits out of the measurement. */
const SUBMIT_AFTER = 'WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE';
const NEVER = 1_000_000;

const {values} = parseArgs({options: {only: {type: 'string', default: ''}, batches: {type: 'string', default: '500'}}});

const adapter = await useBackend('webgpu');
const backend = tf.backend() as unknown as WebGPUBackend;
const submitAfter = tf.env().getNumber(SUBMIT_AFTER);

const dispatch = Reflect.get(GPUComputePassEncoder.prototype, 'dispatchWorkgroups');
GPUComputePassEncoder.prototype.dispatchWorkgroups = function(this: GPUComputePassEncoder) {
  return dispatch.call(this, 0, 0, 0);
};

const [x, y, z] = [1, 2, 3].map(() => tf.randomNormal<tf.Rank.R4>([1, 16, 2, 16]));
const q = tf.randomNormal<tf.Rank.R4>([1, 1, 2, 16]);
const k = tf.randomNormal<tf.Rank.R4>([1, 1, 2, 16]);
for (const {dataId} of [x, y, z, q, k]) {
  backend.uploadToGPU(dataId); // or tfjs adds them on the host
}
const cache = new KvCache({batch: 1, capacity: 4096, keyHeads: 2, headSize: 16});
const gradients = tf.valueAndGrads((...qkv: tf.Tensor[]) =>
    flashAttention(qkv[0] as tf.Tensor4D, qkv[1], qkv[2], {causal: true}).sum());
const floor = tf.valueAndGrads((...xs: tf.Tensor[]) => xs[0].add(xs[1]).add(xs[2]).sum());

const calls: Array<[name: string, call: () => tf.Tensor|tf.Tensor[]]> = [
  ['tf.add', () => tf.add(x, y)],
  ['tf.matMul', () => tf.matMul(x, y, false, true)],
  ['matMul, softmax, matMul', () => tf.tidy(() => tf.matMul(tf.softmax(tf.matMul(x, y, false, true)), z))],
  ['flashAttention', () => flashAttention(x, y, z)],
  ['flashAttention, causal, sinks', () => flashAttention(x, y, z, {causal: true, sinks: [0, 0]})],
  ['flashAttention, 5 options', () => flashAttention(
      x, y, z, {causal: true, windowSize: [8, 8], softmaxScale: 0.3, softcap: 5, keyLengths: [12]})],
  ['KvCache.attend, one token', () => {
    if (cache.lengths[0] === cache.capacity) {
      cache.truncate(2048);
    }
    return cache.attend(q, {k, v: k, causal: true});
  }],
  ['add, add, sum, forward and backward', () => {
    const {value, grads} = floor([x, y, z]);
    return [value, ...grads];
  }],
  ['flashAttention, sum, forward and backward', () => {
    const {value, grads} = gradients([x, y, z]);
    return [value, ...grads];
  }],
];

const idle = () => backend.queue.onSubmittedWorkDone();

/** Least µs a call of all batches. Results are disposed of, and what is left over is submitted, off the clock. */
async function microseconds(call: () => tf.Tensor|tf.Tensor[], batches: number): Promise<number> {
  let least = Infinity;
  for (let batch = 0; batch < batches; batch++) {
    const results: Array<tf.Tensor|tf.Tensor[]> = [];
    const start = performance.now();
    for (let n = 0; n < CALLS; n++) {
      results.push(call());
    }
    least = Math.min(least, performance.now() - start);
    tf.dispose(results);
    backend.endComputePassEncoder();
    if ((backend as unknown as {commandEncoder: unknown}).commandEncoder) {
      backend.submitQueue();
    }
    await idle();
  }
  return 1000 * least / CALLS;
}

console.log(describeEnvironment(adapter));
const batches = Number(values.batches);
for (const [name, call] of calls.filter(([name]) => name.includes(values.only))) {
  const columns: string[] = [];
  for (const after of [NEVER, submitAfter]) {
    tf.env().set(SUBMIT_AFTER, after);
    const spent = await microseconds(call, batches);
    const submits = after === NEVER ? 'without submits' : `submits every ${after}`;
    columns.push(`${spent.toFixed(1).padStart(7)} µs ${submits}`);
  }
  console.log(`${name.padEnd(42)} ${columns.join(', ')}`);
}
process.exit(0); // Dawn keeps Node alive
