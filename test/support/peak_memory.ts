// Prints by how many bytes the process' largest resident size grows through attention over long sequences, forward and
// backward, on the backend cpu; and whether the addon computed it. A program of its own: the size is the process'.
import {readFileSync, writeFileSync} from 'node:fs';

import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';
import {nativeReport} from '../../src/node.js';

const [length, heads, size] = process.argv.slice(2).map(Number);
/** A size from Linux' account of this process, in bytes. */
const sizeOf = (name: 'VmRSS'|'VmHWM') =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))![1]);

await tf.setBackend('cpu');
const attend = tf.grads(
    (q, k, v) => flashAttention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, {causal: true}) as tf.Tensor);
const run = (n: number) => tf.tidy(() => {
  const x = [1, 2, 3].map(seed => tf.randomUniform([1, n, heads, size], -1, 1, 'float32', seed));
  return attend(x).map(gradient => tf.sum(gradient).dataSync()[0]);
});
run(64); // threads, code
writeFileSync('/proc/self/clear_refs', '5'); // the largest size so far, that of starting up, is forgotten
const before = sizeOf('VmRSS');
const sums = run(length);
const {calls} = nativeReport();
console.log(JSON.stringify({grown: sizeOf('VmHWM') - before, finite: sums.every(Number.isFinite), calls}));
