import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';
import {Random} from '../../support/random.js';

import {scopeEachSpec} from './scope.js';

type Symbolic = tf.SymbolicTensor;

const initializer = (seed: number) => tf.initializers.glorotUniform({seed});

describe('Training FlashMultiHeadAttention', () => {
  scopeEachSpec();

  it('model.fit learns to look up: the output is the row whose key matches the query', async () => {
    // Each sequence holds the one-hot key 0..3 of each row in random order beside a random value; the last row asks.
    const [count, length] = [64, 5];
    const random = new Random(1);
    const xs: number[][][] = [];
    const ys: number[][] = [];
    for (let n = 0; n < count; n++) {
      const asked = random.integer(4);
      const values = Array.from({length: 4}, () => random.normal());
      const oneHot = (i: number) => [0, 1, 2, 3].map(j => j === i ? 1 : 0);
      xs.push([...values.map((value, i) => [...oneHot(i), value, 0]), [...oneHot(asked), 0, 1]]);
      ys.push([values[asked]]);
    }
    const x = tf.input({shape: [length, 6]});
    const attention = new FlashMultiHeadAttention({numHeads: 2, keyDim: 8, kernelInitializer: initializer(5)});
    const h = attention.apply(x) as Symbolic;
    const flat = tf.layers.flatten().apply(h) as Symbolic;
    const y = tf.layers.dense({units: 1, kernelInitializer: initializer(6)}).apply(flat) as Symbolic;
    const model = tf.model({inputs: x, outputs: y});
    const optimizer = tf.train.adam(0.02);
    model.compile({optimizer, loss: 'meanSquaredError'});
    const [inputs, targets] = [tf.tensor3d(xs), tf.tensor2d(ys)];
    const before = attention.getWeights().map(weight => weight.clone());
    const {history} = await model.fit(inputs, targets, {epochs: 60, batchSize: 32, shuffle: false, verbose: 0});
    const [first, last] = [history.loss[0], history.loss[59]] as number[];
    // Without attention to the right row nothing under the variance of the values, about 1, is to be had.
    expect(first).toBeGreaterThan(0.5);
    expect(last).toBeLessThan(0.1);
    attention.getWeights().forEach((weight, i) => {
      const {name} = attention.weights[i];
      // The key's bias adds the same to every score of a row, which softmax takes away again: its gradient is 0.
      if (!name.endsWith('/key/bias')) {
        const moved = tf.max(tf.abs(tf.sub(weight, before[i]))).dataSync()[0];
        expect(moved).withContext(name).toBeGreaterThan(1e-3);
      }
    });
    optimizer.dispose();
  });

  it('lists its weights under Keras\' names, in Keras\' order and shapes', () => {
    const layer = new FlashMultiHeadAttention(
        {name: 'attention_names', numHeads: 4, keyDim: 3, valueDim: 5, numKvHeads: 2, outputShape: [2, 7]});
    layer.apply([tf.input({shape: [3, 6]}), tf.input({shape: [5, 8]}), tf.input({shape: [5, 9]})]);
    const expected: Array<[string, number[]]> = [
      ['query/kernel', [6, 4, 3]], ['query/bias', [4, 3]], ['key/kernel', [9, 2, 3]], ['key/bias', [2, 3]],
      ['value/kernel', [8, 2, 5]], ['value/bias', [2, 5]], ['attention_output/kernel', [4, 5, 2, 7]],
      ['attention_output/bias', [2, 7]],
    ];
    const listed = layer.trainableWeights.map(weight => [weight.originalName, weight.shape]);
    expect(listed).toEqual(expected.map(([name, shape]) => [`attention_names/${name}`, shape]));
    expect(layer.getWeights().map(weight => weight.shape)).toEqual(expected.map(([, shape]) => shape));
    expect(layer.countParams()).toBe(72 + 12 + 54 + 6 + 80 + 10 + 280 + 14);
    layer.trainable = false;
    expect(layer.trainableWeights).toEqual([]);
    expect(layer.nonTrainableWeights.length).toBe(8);
  });

  it('has no biases without useBias', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, useBias: false});
    layer.apply(tf.input({shape: [3, 6]}));
    expect(layer.weights.map(weight => weight.originalName.split('/').slice(-2).join('/')))
        .toEqual(['query/kernel', 'key/kernel', 'value/kernel', 'attention_output/kernel']);
  });

  it('starts its weights, penalises and constrains them as it is told', async () => {
    const x = tf.input({shape: [3, 2]});
    const layer = new FlashMultiHeadAttention({
      numHeads: 1, keyDim: 2, kernelInitializer: tf.initializers.constant({value: 2}), biasInitializer: 'ones',
      kernelRegularizer: tf.regularizers.l2({l2: 0.5}), biasConstraint: 'nonNeg',
    });
    const model = tf.model({inputs: x, outputs: layer.apply(x) as Symbolic});
    expect(layer.getWeights().map(weight => [...new Set(weight.dataSync())]))
        .toEqual([[2], [1], [2], [1], [2], [1], [2], [1]]);
    const losses = layer.calculateLosses().map(loss => loss.dataSync()[0]);
    expect(losses).toEqual([8, 8, 8, 8]);   // 0.5·Σ2² over 4 elements, for each kernel
    const optimizer = tf.train.sgd(1);
    model.compile({optimizer, loss: 'meanSquaredError'});
    await model.fit(tf.ones([1, 3, 2]), tf.fill([1, 3, 2], -100), {epochs: 1, verbose: 0});
    expect(tf.max(layer.getWeights()[0]).dataSync()[0]).toBeLessThan(2);
    optimizer.dispose();
    // tfjs applies constraints where weights are written, though not in fit.
    layer.setWeights(layer.getWeights().map(weight => tf.fill(weight.shape, -3)));
    expect(layer.getWeights().map(weight => weight.dataSync()[0])).toEqual([-3, 0, -3, 0, -3, 0, -3, 0]);
  });

  it('a frozen layer does not move while the rest trains', async () => {
    const x = tf.input({shape: [3, 2]});
    const layer = new FlashMultiHeadAttention({numHeads: 1, keyDim: 2, trainable: false});
    const dense = tf.layers.dense({units: 1});
    const model = tf.model({inputs: x, outputs: dense.apply(layer.apply(x) as Symbolic) as Symbolic});
    const optimizer = tf.train.sgd(0.1);
    model.compile({optimizer, loss: 'meanSquaredError'});
    const values = (l: tf.layers.Layer) => l.getWeights().map(weight => [...weight.dataSync()]);
    const before = [values(layer), values(dense)];
    await model.fit(tf.ones([1, 3, 2]), tf.ones([1, 3, 1]), {epochs: 2, verbose: 0});
    expect(values(layer)).toEqual(before[0]);
    expect(values(dense)).not.toEqual(before[1]);
    optimizer.dispose();
  });
});
