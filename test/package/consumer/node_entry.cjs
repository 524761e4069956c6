// A user of WebGPU in Node, with CommonJS. The package `webgpu` is an ES module, which require() may refuse.
const tf = require('@tensorflow/tfjs');
const {enableWebGPU, flashAttention} = require('tfjs-flash-attention/node');

const check = require('./attention_check.cjs');

async function main() {
  await enableWebGPU();
  const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
  check.assertAttention('flashAttention', await flashAttention(q, k, v, {causal: true}).data());
}

main();
