// A user of tfjs-node alone: a product, a gradient, a training, a model saved and loaded, on TensorFlow.
const assert = require('node:assert/strict');
const {mkdtempSync, rmSync} = require('node:fs');
const {tmpdir} = require('node:os');
const {join} = require('node:path');

const tf = require('@tensorflow/tfjs-node');

async function main() {
  assert.equal(tf.getBackend(), 'tensorflow');
  assert.deepEqual(await tf.matMul([[1, 2], [3, 4]], [[5, 6], [7, 8]]).array(), [[19, 22], [43, 50]]);

  const gradient = tf.grad(x => tf.sum(tf.softmax(x).square()));
  const [x, step] = [[0.5, -1, 2], 1e-2];
  const f = values => tf.sum(tf.softmax(tf.tensor1d(values)).square()).dataSync()[0];
  const slopes = gradient(tf.tensor1d(x)).arraySync();
  x.forEach((value, i) => {
    const [up, down] = [step, -step].map(change => f(x.map((other, j) => j === i ? value + change : other)));
    assert.ok(Math.abs(slopes[i] - (up - down) / (2 * step)) < 1e-3, `gradient ${i}: ${slopes[i]}`);
  });

  // What calls the util functions that newer versions of Node lack.
  assert.deepEqual(tf.topk(tf.tensor1d([3, 1, 2]), 2).values.arraySync(), [3, 2]);
  assert.deepEqual(tf.concat([tf.tensor1d([1]), tf.tensor1d([2])]).arraySync(), [1, 2]);

  const kernel = seed => ({kernelInitializer: tf.initializers.glorotNormal({seed})});
  const model = tf.sequential({layers: [
    tf.layers.dense({units: 8, activation: 'tanh', inputShape: [2], ...kernel(1)}),
    tf.layers.dense({units: 1, activation: 'sigmoid', ...kernel(2)}),
  ]});
  model.compile({optimizer: tf.train.adam(0.1), loss: 'binaryCrossentropy'});
  const inputs = tf.tensor2d([[0, 0], [0, 1], [1, 0], [1, 1]]);
  const {history} = await model.fit(inputs, tf.tensor2d([[0], [1], [1], [0]]), {epochs: 200, verbose: 0});
  const loss = history.loss.at(-1);
  assert.ok(loss < 0.1, `exclusive or is not learnt: loss ${loss}`);

  const folder = mkdtempSync(join(tmpdir(), 'tfjs-model-'));
  await model.save(`file://${folder}`);
  const loaded = await tf.loadLayersModel(`file://${folder}/model.json`);
  rmSync(folder, {recursive: true});
  assert.deepEqual(loaded.predict(inputs).arraySync(), model.predict(inputs).arraySync());
  console.log(`Node ${process.version}: loss of exclusive or ${loss.toFixed(4)}`);
}

main();
