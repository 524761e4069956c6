import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';

import {scopeEachSpec} from './scope.js';

type Symbolic = tf.SymbolicTensor;

describe('FlashMultiHeadAttention leaks no tensor', () => {
  scopeEachSpec();

  /** Tensors alive after each of several runs, less those before the first; all 0 when nothing is left. */
  const growth = (run: () => void) => {
    const before = tf.memory().numTensors;
    return [1, 2, 3].map(() => {
      // Not a scope: what the layer leaves must count.
      run();
      return tf.memory().numTensors - before;
    });
  };
  const decoder = () => {
    const [x, y] = [tf.input({shape: [4]}), tf.input({shape: [5]})];
    const embedding = tf.layers.embedding({inputDim: 9, outputDim: 6, maskZero: true});
    const [q, v] = [x, y].map(ids => embedding.apply(ids) as Symbolic);
    const own = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, dropout: 0.2, useCausalMask: true, seed: 1});
    const h = tf.layers.add().apply([q, own.apply([q, q]) as Symbolic]) as Symbolic;
    const out = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, numKvHeads: 1}).apply([h, v]) as Symbolic;
    return tf.model({inputs: [x, y], outputs: out});
  };
  const inputs = () => [tf.tensor([[1, 2, 0, 0], [3, 4, 5, 6]]), tf.tensor([[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]])];

  it('in model.predict', () => {
    const [model, xs] = [decoder(), inputs()];
    expect(growth(() => tf.dispose(model.predict(xs)))).toEqual([0, 0, 0]);
  });

  it('in model.fit, but for what the optimizer keeps', async () => {
    const [model, xs, ys] = [decoder(), inputs(), tf.zeros([2, 4, 6])];
    model.compile({optimizer: tf.train.adam(0.01), loss: 'meanSquaredError'});
    const fit = () => model.fit(xs, ys, {epochs: 2, verbose: 0});
    await fit();
    const before = tf.memory().numTensors;
    await fit();
    expect(tf.memory().numTensors).toBe(before);
    model.optimizer.dispose();
  });

  it('in apply on tensors, with and without training and masks: one tensor comes out', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, dropout: 0.2});
    const [q, v] = [tf.zeros([2, 4, 6]), tf.zeros([2, 5, 6])];
    (layer.apply([q, v]) as tf.Tensor).dispose();
    const options = {
      training: true, queryMask: tf.ones([2, 4]), valueMask: tf.ones([2, 5]), attentionMask: tf.ones([4, 5]),
    };
    expect(growth(() => (layer.apply([q, v]) as tf.Tensor).dispose())).toEqual([0, 0, 0]);
    expect(growth(() => (layer.apply([q, v], options) as tf.Tensor).dispose())).toEqual([0, 0, 0]);
    const mask = [options.queryMask, null];
    expect(growth(() => (layer.apply([q, v], {mask}) as tf.Tensor).dispose())).toEqual([0, 0, 0]);
  });

  it('in gradients', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    const x = tf.randomNormal([2, 4, 6]);
    (layer.apply(x) as tf.Tensor).dispose();
    const queryMask = tf.ones([2, 4]);
    const loss = () => tf.tidy(() => tf.sum(layer.apply(x, {queryMask}) as tf.Tensor) as tf.Scalar);
    expect(growth(() => tf.dispose(tf.variableGrads(loss) as unknown as tf.TensorContainer))).toEqual([0, 0, 0]);
  });

  it('in errors', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    const x = tf.zeros([2, 4, 6]);
    (layer.apply(x) as tf.Tensor).dispose();
    const [short, extra] = [tf.ones([2, 3]), tf.zeros([1])];
    for (const run of [
      () => layer.apply(x, {queryMask: short}), () => layer.apply(x, {attentionMask: short}),
      () => layer.apply([x, short, extra]), () => layer.loadKerasWeights({'query/kernel': extra}),
      () => new FlashMultiHeadAttention({numHeads: 2, keyDim: 3}).apply(short),
      () => new FlashMultiHeadAttention({numHeads: 0, keyDim: 3}),
      () => new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, kernelInitializer: 'nope' as never}),
    ]) {
      expect(growth(() => expect(run).toThrowError(/^FlashMultiHeadAttention: expected /))).toEqual([0, 0, 0]);
    }
  });

  it('in dispose, which frees every weight', () => {
    const before = tf.memory().numTensors;
    const x = tf.input({shape: [4, 6]});
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    const model = tf.model({inputs: x, outputs: layer.apply([x, x]) as Symbolic});
    expect(tf.memory().numTensors).toBe(before + 8);
    expect(model.dispose().numDisposedVariables).toBe(8);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('in loadKerasWeights', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, useBias: false});
    (layer.apply(tf.zeros([1, 2, 6])) as tf.Tensor).dispose();
    const weights = {
      'query/kernel': tf.ones([6, 2, 3]), 'key/kernel': tf.ones([6, 2, 3]), 'value/kernel': tf.ones([6, 2, 3]),
      'attention_output/kernel': tf.ones([2, 3, 6]),
    };
    expect(growth(() => layer.loadKerasWeights(weights))).toEqual([0, 0, 0]);
  });
});
