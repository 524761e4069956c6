import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention, replaceKerasAttention} from '../../../src/layers/index.js';

import {expectEqual, kerasFixture, unpack, unpackAll} from './keras_fixture.js';
import {scopeEachSpec} from './scope.js';

const SHAPES: Record<string, number[]> = {
  'query/kernel': [6, 2, 3], 'query/bias': [2, 3], 'key/kernel': [6, 2, 3], 'key/bias': [2, 3],
  'value/kernel': [6, 2, 3], 'value/bias': [2, 3], 'attention_output/kernel': [2, 3, 6], 'attention_output/bias': [6],
};

const built = (config = {}) => {
  const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, ...config});
  layer.apply(tf.zeros([1, 2, 6]));
  return layer;
};

/** One tensor for each weight, filled with its place, under names that `rename` makes. */
const weightsNamed = (rename: (name: string, index: number) => string, from = 0): tf.NamedTensorMap =>
    Object.fromEntries(Object.entries(SHAPES).map(([name, shape], i) => [rename(name, i), tf.fill(shape, from + i)]));

const firstElements = (layer: tf.layers.Layer) => layer.getWeights().map(weight => weight.dataSync()[0]);

describe('loadKerasWeights', () => {
  scopeEachSpec();

  const keras3Paths = (name: string) => {
    const [sublayer, weight] = name.split('/');
    const folder = sublayer === 'attention_output' ? 'output_dense' : `${sublayer}_dense`;
    return `layers/multi_head_attention/${folder}/vars/${weight === 'kernel' ? 0 : 1}`;
  };
  for (const [form, rename] of Object.entries<(name: string) => string>({
    'bare': name => name,
    'Keras 3': name => `mha/${name}`,
    'Keras 2, with :0': name => `decoder/mha/${name}:0`,
    'camelCase': name => `mha/${name.replace('attention_output', 'attentionOutput')}`,
    '.weights.h5': keras3Paths,
    '.keras attribute names': name => keras3Paths(name).replace('attention/', 'attention/_').replace('vars/', ''),
  })) {
    it(`reads names as found: ${form}`, () => {
      const layer = built();
      layer.loadKerasWeights(weightsNamed(rename));
      expect(firstElements(layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    });
  }

  it('copies: the caller\'s tensors may go', () => {
    const layer = built();
    const weights = weightsNamed(name => name);
    layer.loadKerasWeights(weights);
    tf.dispose(weights);
    expect(firstElements(layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('takes one layer of many by its prefix, and passes over the state of a random generator', () => {
    const layer = built();
    const weights = {
      ...weightsNamed(name => `model/first/${name}`), ...weightsNamed(name => `model/other_first/${name}`, 10),
      'model/first/seed_generator/seed_generator_state': tf.zeros([2]), 'model/dense/kernel': tf.zeros([3, 3]),
    };
    layer.loadKerasWeights(weights, 'other_first');
    expect(firstElements(layer)).toEqual([10, 11, 12, 13, 14, 15, 16, 17]);
    layer.loadKerasWeights(weights, 'first');
    expect(firstElements(layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(() => layer.loadKerasWeights(weights)).toThrowError(
        /query\/kernel could be model\/first\/query\/kernel or model\/other_first\/query\/kernel \(give a prefix\)/);
  });

  it('lists everything that does not fit, and then sets nothing', () => {
    const layer = built();
    const before = firstElements(layer);
    const weights = weightsNamed(name => `mha/${name}`, 20);
    delete weights['mha/key/bias'];
    delete weights['mha/value/kernel'];
    weights['mha/query/kernel'] = tf.zeros([6, 6]);
    weights['mha/gate/kernel'] = tf.zeros([6, 2, 3]);
    expect(() => layer.loadKerasWeights(weights)).toThrowError(
        'FlashMultiHeadAttention: expected query/kernel, query/bias, key/kernel, key/bias, value/kernel, value/bias, ' +
        'attention_output/kernel, attention_output/bias for weights, received 7 tensors: ' +
        'mha/query/kernel has shape [6,6] instead of [6,2,3]; key/bias [2,3] is missing; ' +
        'value/kernel [6,2,3] is missing; mha/gate/kernel has no place in the layer');
    expect(firstElements(layer)).toEqual(before);
    expect(() => layer.loadKerasWeights(weightsNamed(name => `mha/${name}`), 'nobody'))
        .toThrowError(/for weights under 'nobody', received 8 tensors: query\/kernel \[6,2,3\] is missing/);
  });

  it('refuses biases that the layer has no use for', () => {
    expect(() => built({useBias: false}).loadKerasWeights(weightsNamed(name => `mha/${name}`)))
        .toThrowError(/mha\/query\/bias has no place in the layer/);
  });

  it('refuses a layer without weights', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, name: 'unbuilt'});
    expect(() => layer.loadKerasWeights(weightsNamed(name => name))).toThrowError(
        'FlashMultiHeadAttention: expected a layer that has been applied or built for loadKerasWeights, ' +
        'received \'unbuilt, which has no weights yet\'');
  });
});

describe('replaceKerasAttention', () => {
  scopeEachSpec();

  const load = (topology: object) => {
    const weights = Object.fromEntries(
        Object.entries(kerasFixture.keras_2.weights).map(([name, packed]) => [name.replace(/:0$/, ''), packed]));
    const data = Object.values(weights).flatMap(packed => packed.values);
    return tf.loadLayersModel(tf.io.fromMemory({
      modelTopology: topology,
      weightSpecs: Object.entries(weights).map(([name, {shape}]) => ({name, shape, dtype: 'float32' as const})),
      weightData: Float32Array.from(data).buffer,
    }));
  };

  it('makes a Keras 2 model load, with its masks, and compute what it computes in Keras', async () => {
    const {topology, inputs, output, kept} = kerasFixture.keras_2;
    const text = JSON.stringify(topology);
    const model = await load(replaceKerasAttention(topology));
    expect(JSON.stringify(topology)).withContext('the argument').toBe(text);
    expect(model.layers.filter(layer => layer instanceof FlashMultiHeadAttention).map(layer => layer.name))
        .toEqual(['cross_attention', 'self_attention']);
    expectEqual('output', model.predict(inputs.map(packed => unpack(packed))) as tf.Tensor, output, kept);
  });

  it('such a model trains', async () => {
    const {topology, inputs} = kerasFixture.keras_2;
    const model = await load(replaceKerasAttention(topology));
    model.compile({optimizer: tf.train.adam(0.02), loss: 'meanSquaredError'});
    const xs = inputs.map(packed => unpack(packed));
    const {history} = await model.fit(xs, tf.ones([2, 4, 6]), {epochs: 5, verbose: 0});
    expect(history.loss[4]).toBeLessThan(history.loss[0] as number);
    model.optimizer.dispose();
  });

  it('passes over what is no attention, and finds it at any depth', () => {
    const dense = {class_name: 'Dense', config: {units: 1}, inbound_nodes: [[['x', 0, 0, {}]]]};
    const attention = {class_name: 'GroupedQueryAttention', name: 'gqa', config: {head_dim: 2}, inbound_nodes: [[
      ['x', 0, 0, {value: ['v', 1, 2], key_mask: ['m', 0, 0], training: false, return_attention_scores: false}]]]};
    const topology = {model_config: {config: {layers: [dense, {config: {layers: [attention]}}]}}};
    expect(replaceKerasAttention(topology)).toEqual({
      model_config: {config: {layers: [dense, {config: {layers: [{
        class_name: 'FlashMultiHeadAttention', name: 'gqa', config: {head_dim: 2, use_causal_mask: false},
        inbound_nodes: [[['x', 0, 0, {}], ['v', 1, 2, {}], ['v', 1, 2, {}], ['m', 0, 0, {}]]],
      }]}}]}},
    } as never);
    expect(replaceKerasAttention(null)).toBeNull();
  });

  it('refuses calls that it cannot express', () => {
    const layer = (...nodes: unknown[]) =>
        () => replaceKerasAttention({class_name: 'MultiHeadAttention', name: 'a', config: {}, inbound_nodes: nodes});
    const value = ['v', 0, 0];
    expect(layer([['x', 0, 0, {value, query_mask: ['m', 0, 0]}]])).toThrowError(
        'FlashMultiHeadAttention: expected no such call argument in a Keras model for query_mask of layer \'a\', ' +
        'received [\'m\',0,0]');
    expect(layer([['x', 0, 0, {value, training: true}]])).toThrowError(
        /expected false for training and return_attention_scores of layer 'a'/);
    expect(layer([['x', 0, 0, {value, return_attention_scores: true}]])).toThrowError(
        /expected false for training and return_attention_scores of layer 'a'/);
    expect(layer([['x', 0, 0, {}]])).toThrowError(
        'FlashMultiHeadAttention: expected a value for the call of layer \'a\', received an object with keys []');
    expect(layer([['x', 0, 0, {value}]], [['x', 0, 0, {value, use_causal_mask: true}]])).toThrowError(
        'FlashMultiHeadAttention: expected use_causal_mask alike in every call for layer \'a\', received [false,true]');
    expect(layer({args: [], kwargs: {}})).toThrowError(
        /expected inbound_nodes as Keras 2 writes them for layer 'a', received/);
  });

  it('agrees with unpackAll about the fixture', () => {
    expect(Object.keys(unpackAll(kerasFixture.keras_2.weights)).length).toBe(17);
  });
});
