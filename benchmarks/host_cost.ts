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

/** Takes turns among tensors in periods without a common divisor: the same few together hardly come again. */
const PERIODS = [29, 31, 37];

function inputs(shape: [number, number, number, number]): (n: number) => tf.Tensor4D[] {
  const rings = PERIODS.map(period => Array.from({length: period}, () => {
    const tensor = tf.randomNormal<tf.Rank.R4>(shape);
    backend.uploadToGPU(tensor.dataId); // or tfjs adds small tensors on the host
    return tensor;
  }));
  return n => rings.map(ring => ring[n % ring.length]);
}

const rows = inputs([1, 16, 2, 16]);
/** Enough work for float16 to be by subgroup matrices, where there are any (scripts/lavapipe.mjs has a device). */
const manyRows = inputs([1, 256, 16, 64]);
const tokens = inputs([1, 1, 2, 16]);
const [dy] = rows(1);
const [manyDy] = manyRows(1);
const cache = new KvCache({batch: 1, capacity: 4096, keyHeads: 2, headSize: 16});

/** Calls so far: what new tensors and seeds are taken by. */
let turn = 0;

type Call = (n: number) => tf.Tensor|tf.Tensor[];

/** A function of three tensors, forward and backward. */
const withGradients = (
    f: (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => tf.Tensor, of = rows, dOutput = dy): Call => {
  const run = tf.valueAndGrads((...xs) => f(xs[0] as tf.Tensor4D, xs[1] as tf.Tensor4D, xs[2] as tf.Tensor4D));
  return n => {
    const {value, grads} = run(of(n), dOutput);
    return [value, ...grads];
  };
};
const unfused = (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) =>
    tf.tidy(() => tf.matMul(tf.softmax(tf.matMul(q, k, false, true)), v));
const on = (f: (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => tf.Tensor, of = rows): Call => n => {
  const [q, k, v] = of(n);
  return f(q, k, v);
};

const calls: Array<[name: string, call: Call]> = [
  ['tf.add', on((q, k) => tf.add(q, k))],
  ['tf.matMul', on((q, k) => tf.matMul(q, k, false, true))],
  ['matMul, softmax, matMul', on(unfused)],
  ['flashAttention', on((q, k, v) => flashAttention(q, k, v))],
  ['flashAttention, sinks', on((q, k, v) => flashAttention(q, k, v, {causal: true, sinks: [0, 0]}))],
  ['flashAttention, 5 options', on((q, k, v) => flashAttention(
      q, k, v, {causal: true, windowSize: [8, 8], softmaxScale: 0.3, softcap: 5, keyLengths: [12]}))],
  ['flashAttention, float16', on((q, k, v) => flashAttention(q, k, v, {computeType: 'float16'}), manyRows)],
  ['flashAttention, dropout', on((q, k, v) => flashAttention(q, k, v, {dropoutP: 0.1, seed: turn}))],
  ['KvCache.attend, one token', n => {
    if (cache.lengths[0] === cache.capacity) {
      cache.truncate(2048);
    }
    const [q, k, v] = tokens(n);
    return cache.attend(q, {k, v, causal: true});
  }],
  ['2 tf.add and gradients', withGradients((q, k, v) => tf.add(tf.add(q, k), v))],
  ['unfused and gradients', withGradients(unfused)],
  ['flashAttention and gradients', withGradients((q, k, v) => flashAttention(q, k, v, {causal: true}))],
  ['float16 and gradients', withGradients(
      (q, k, v) => flashAttention(q, k, v, {causal: true, computeType: 'float16'}), manyRows, manyDy)],
];

/** Least µs a call of all batches. Results are disposed of, and what is left over is submitted, off the clock. */
async function microseconds(call: Call, batches: number, newBuffers: boolean): Promise<number> {
  let least = Infinity;
  for (let batch = 0; batch < batches; batch++) {
    const results: Array<tf.Tensor|tf.Tensor[]> = [];
    const start = performance.now();
    for (let n = 0; n < CALLS; n++, turn++) {
      results.push(call(newBuffers ? turn : 0));
    }
    least = Math.min(least, performance.now() - start);
    tf.dispose(results);
    backend.endComputePassEncoder();
    if ((backend as unknown as {commandEncoder: unknown}).commandEncoder) {
      backend.submitQueue();
    }
    await backend.queue.onSubmittedWorkDone();
  }
  return 1000 * least / CALLS;
}

console.log(describeEnvironment(adapter));
console.log(`µs a call: on the same tensors, on others each time; with submits every ${submitAfter} dispatches`);
for (const [name, call] of calls.filter(([name]) => name.includes(values.only))) {
  const columns: number[] = [];
  for (const [after, newBuffers] of [[NEVER, false], [NEVER, true], [submitAfter, true]] as const) {
    tf.env().set(SUBMIT_AFTER, after);
    columns.push(await microseconds(call, Number(values.batches), newBuffers));
  }
  console.log(`${name.padEnd(30)} ${columns.map(spent => spent.toFixed(1).padStart(7)).join(' ')}`);
}
process.exit(0); // Dawn keeps Node alive
