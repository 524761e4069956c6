// Prints by how many bytes the process' largest resident size grows through attention over long sequences, forward and
// backward, on the backend cpu; and whether the addon computed it. A program of its own: the size never sinks again.
import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';
import {nativeReport} from '../../src/node.js';

const [length, heads, size] = process.argv.slice(2).map(Number);
const peak = () => process.resourceUsage().maxRSS * 1024;

await tf.setBackend('cpu');
const attend = tf.grads(
    (q, k, v) => flashAttention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, {causal: true}) as tf.Tensor);
const run = (n: number) => tf.tidy(() => {
  const x = [1, 2, 3].map(seed => tf.randomUniform([1, n, heads, size], -1, 1, 'float32', seed));
  return attend(x).map(gradient => tf.sum(gradient).dataSync()[0]);
});
run(64); // threads, code
const before = peak();
const sums = run(length);
const {calls} = nativeReport();
console.log(JSON.stringify({grown: peak() - before, finite: sums.every(Number.isFinite), calls}));
