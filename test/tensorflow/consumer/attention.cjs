// flashAttention and its gradients on TensorFlow, against the same on tfjs' cpu backend.
const assert = require('node:assert/strict');

const tf = require('@tensorflow/tfjs-node');
const {flashAttention} = require('tfjs-flash-attention');
const {FlashMultiHeadAttention} = require('tfjs-flash-attention/layers');

const [q, k, v, dO] = [[2, 37, 4, 16], [2, 53, 2, 16], [2, 53, 2, 24], [2, 37, 4, 24]].map((shape, seed) => {
  const length = shape.reduce((a, b) => a * b);
  return {shape, values: Float32Array.from({length}, (_, i) => Math.sin(seed * 100 + i * 12.9898))};
});

/** Output, dQ, dK, dV as plain numbers. */
async function attention(backend, options) {
  await tf.setBackend(backend);
  return tf.tidy(() => {
    const [q_, k_, v_, dO_] = [q, k, v, dO].map(({shape, values}) => tf.tensor(values, shape));
    const f = (...inputs) => flashAttention(...inputs, options);
    return [f(q_, k_, v_), ...tf.grads(f)([q_, k_, v_], dO_)].map(tensor => tensor.dataSync());
  });
}

async function main() {
  for (const options of [{}, {causal: true}, {causal: true, dropoutP: 0.2, seed: 7}]) {
    const [actual, expected] = [await attention('tensorflow', options), await attention('cpu', options)];
    ['output', 'dQ', 'dK', 'dV'].forEach((name, i) => {
      const error = Math.max(...expected[i].map((value, j) => Math.abs(value - actual[i][j])));
      assert.ok(error < 1e-6, `${name} with ${JSON.stringify(options)}: ${error} away from the cpu backend`);
    });
  }
  await tf.setBackend('tensorflow');
  const model = tf.sequential({layers: [
    new FlashMultiHeadAttention({numHeads: 2, keyDim: 4, useCausalMask: true, inputShape: [8, 6]}),
  ]});
  model.compile({optimizer: tf.train.adam(0.01), loss: 'meanSquaredError'});
  const x = tf.randomNormal([16, 8, 6], 0, 1, 'float32', 3);
  const {history} = await model.fit(x, x, {epochs: 20, verbose: 0});
  assert.ok(history.loss.at(-1) < 0.9 * history.loss[0], `the layer does not learn: ${history.loss}`);
  const before = tf.memory().numTensors;
  flashAttention(...[q, k, v].map(({shape}) => tf.zeros(shape))).dispose();
  assert.equal(tf.memory().numTensors, before + 3);
}

main();
