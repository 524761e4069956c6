import * as tf from '@tensorflow/tfjs';

import {FlashAttentionMask, FlashMultiHeadAttention} from '../../../src/layers/index.js';
import {registerOnce} from '../../../src/layers/register.js';

import {distance} from './keras_fixture.js';
import {scopeEachSpec} from './scope.js';

type Symbolic = tf.SymbolicTensor;
type Args = ConstructorParameters<typeof FlashMultiHeadAttention>[0];

const FULL: Args = {
  name: 'attention', trainable: true, numHeads: 4, keyDim: 3, valueDim: 5, numKvHeads: 2, dropout: 0.25, useBias: false,
  outputShape: [2, 3], useCausalMask: true, seed: 7,
  kernelInitializer: tf.initializers.varianceScaling({scale: 2, mode: 'fanAvg', distribution: 'uniform', seed: 3}),
  biasInitializer: 'ones', kernelRegularizer: tf.regularizers.l2({l2: 0.5}), biasRegularizer: 'l1l2',
  kernelConstraint: tf.constraints.maxNorm({maxValue: 2, axis: 0}), biasConstraint: 'nonNeg',
};

/** A decoder with everything that a graph can hold: two masks, a residual, cross-attention, a head count per layer. */
function decoder(): tf.LayersModel {
  const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [5]})];
  const embedding = tf.layers.embedding({inputDim: 9, outputDim: 4, maskZero: true});
  const [q, v] = [x, y].map(ids => embedding.apply(ids) as Symbolic);
  const memory = tf.layers.layerNormalization().apply(v) as Symbolic;
  const own = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3, useCausalMask: true}).apply([q, q]) as Symbolic;
  const h = tf.layers.add().apply([q, own]) as Symbolic;
  const cross = new FlashMultiHeadAttention({numHeads: 4, keyDim: 2, numKvHeads: 1, outputShape: 6});
  return tf.model({inputs: [x, y], outputs: cross.apply([h, memory]) as Symbolic});
}

const decoderInputs = () => [tf.tensor([[3, 1, 0], [5, 2, 6]]), tf.tensor([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])];

/** Saves into memory and loads again, as bytes and JSON text. */
async function saveAndLoad(model: tf.LayersModel): Promise<tf.LayersModel> {
  let saved: tf.io.ModelArtifacts|undefined;
  await model.save(tf.io.withSaveHandler(async artifacts => {
    saved = artifacts;
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  }));
  const modelTopology = JSON.parse(JSON.stringify(saved!.modelTopology)) as object;
  return tf.loadLayersModel(tf.io.fromMemory({...saved!, modelTopology}));
}

describe('Serialisation of FlashMultiHeadAttention', () => {
  scopeEachSpec();

  it('getConfig holds the whole configuration, and gives it back through fromConfig and JSON', () => {
    const config = new FlashMultiHeadAttention(FULL).getConfig();
    for (const [key, value] of Object.entries(FULL)) {
      expect(Object.keys(config)).toContain(key);
      if (typeof value !== 'object' && typeof value !== 'string') {
        expect(config[key]).withContext(key).toEqual(value);
      }
    }
    expect(config.outputShape).toEqual([2, 3]);
    const again = FlashMultiHeadAttention.fromConfig(
        FlashMultiHeadAttention, JSON.parse(JSON.stringify(config)) as tf.serialization.ConfigDict);
    expect(again).toBeInstanceOf(FlashMultiHeadAttention);
    expect(again.getConfig()).toEqual(config);
  });

  it('keeps the defaults of a minimal configuration', () => {
    const config = new FlashMultiHeadAttention({numHeads: 4, keyDim: 3}).getConfig();
    expect(config).toEqual(jasmine.objectContaining({
      numHeads: 4, keyDim: 3, valueDim: 3, numKvHeads: 4, dropout: 0, useBias: true, outputShape: null,
      useCausalMask: false, seed: null, kernelRegularizer: null, biasRegularizer: null, kernelConstraint: null,
      biasConstraint: null, trainable: true,
    }));
    expect((config.kernelInitializer as tf.serialization.ConfigDict).className).toBe('VarianceScaling');
    expect((config.biasInitializer as tf.serialization.ConfigDict).className).toBe('Zeros');
  });

  it('a model\'s toJSON, read again, makes the same model', async () => {
    const model = decoder();
    const text = model.toJSON() as string;
    expect(text).toContain('"class_name":"FlashMultiHeadAttention"');
    expect(text).toContain('"num_kv_heads":1');
    const again = await tf.models.modelFromJSON({modelTopology: JSON.parse(text) as object} as never);
    // tfjs' Embedding gains a dtype on the way; the rest of the graph and our layers are the same.
    const layers = (json: string) => (JSON.parse(json) as {config: {layers: Array<{class_name: string}>}}).config.layers
        .filter(layer => layer.class_name !== 'Embedding');
    expect(layers(again.toJSON() as string)).toEqual(layers(text));
    again.setWeights(model.getWeights());
    expect(distance(again.predict(decoderInputs()) as tf.Tensor, model.predict(decoderInputs()) as tf.Tensor)).toBe(0);
  });

  it('model.save and loadLayersModel keep outputs, weights and their names, masks included', async () => {
    const model = decoder();
    const loaded = await saveAndLoad(model);
    expect(loaded.layers.map(layer => layer.getClassName())).toEqual(model.layers.map(layer => layer.getClassName()));
    expect(loaded.layers.filter(layer => layer instanceof FlashAttentionMask).length).toBe(1);
    const names = (m: tf.LayersModel) => m.weights.map(weight => weight.originalName);
    expect(names(loaded)).toEqual(names(model));
    const ours = names(model).filter(name => /\/(query|key|value|attention_output)\/(kernel|bias)$/.test(name));
    expect(ours.length).toBe(16);
    const [before, after] = [model, loaded].map(m => m.predict(decoderInputs()) as tf.Tensor);
    expect(distance(after, before)).toBe(0);
    // Nothing trivial is compared: other weights give other outputs.
    expect(distance(decoder().predict(decoderInputs()) as tf.Tensor, before)).toBeGreaterThan(1e-3);
  });

  it('a loaded model trains on', async () => {
    const loaded = await saveAndLoad(decoder());
    loaded.compile({optimizer: tf.train.adam(0.05), loss: 'meanSquaredError'});
    const {history} = await loaded.fit(decoderInputs(), tf.ones([2, 3, 6]), {epochs: 8, verbose: 0});
    expect(history.loss[7]).toBeLessThan(history.loss[0] as number);
    loaded.optimizer.dispose();
  });

  it('a layer that is frozen is loaded frozen', async () => {
    const x = tf.input({shape: [3, 4]});
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 2, trainable: false});
    const loaded = await saveAndLoad(tf.model({inputs: x, outputs: layer.apply(x) as Symbolic}));
    expect(loaded.trainableWeights.length).toBe(0);
    expect(loaded.weights.length).toBe(8);
  });

  it('does not disturb how tfjs numbers the layers of a model', () => {
    const number = () => Number(/\d+$/.exec(tf.layers.dense({units: 1}).name)![0]);
    const first = number();
    expect(new FlashMultiHeadAttention(FULL).name).toBe('attention');
    expect(number()).toBe(first + 1);
  });

  it('reads Keras\' config in its own spelling, with its policies, regularizers and grouped heads', () => {
    const keras = {
      name: 'my_layer', trainable: true, dtype: {module: 'keras', class_name: 'DTypePolicy', config: {name: 'float32'}},
      num_heads: 4, key_dim: 3, value_dim: 5, dropout: 0.1, use_bias: true, use_gate: false, output_shape: [6],
      attention_axes: [1], sliding_window: null, flash_attention: true,
      kernel_initializer: {module: 'keras.initializers', class_name: 'VarianceScaling', registered_name: null,
                           config: {scale: 1, mode: 'fan_avg', distribution: 'uniform', seed: null}},
      bias_initializer: 'random_normal',
      kernel_regularizer: {module: 'keras.regularizers', class_name: 'L2', config: {l2: 0.25}, registered_name: null},
      bias_regularizer: {class_name: 'L1', config: {l1: 0.5}}, activity_regularizer: null,
      kernel_constraint: {class_name: 'MaxNorm', config: {max_value: 3, axis: 0}}, bias_constraint: null, seed: null,
    };
    const config = FlashMultiHeadAttention.fromConfig(FlashMultiHeadAttention, keras).getConfig();
    expect(config).toEqual(jasmine.objectContaining({
      name: 'my_layer', numHeads: 4, keyDim: 3, valueDim: 5, numKvHeads: 4, dropout: 0.1, outputShape: [6],
      kernelRegularizer: {className: 'L1L2', config: {l1: 0, l2: 0.25}},
      biasRegularizer: {className: 'L1L2', config: {l1: 0.5, l2: 0}},
      kernelConstraint: {className: 'MaxNorm', config: {maxValue: 3, axis: 0}},
    }));
    expect((config.kernelInitializer as {config: object}).config).toEqual(jasmine.objectContaining({mode: 'fanAvg'}));
    expect((config.biasInitializer as {className: string}).className).toBe('RandomNormal');
    const grouped = {name: 'gqa', head_dim: 3, num_query_heads: 4, num_key_value_heads: 2};
    expect(FlashMultiHeadAttention.fromConfig(FlashMultiHeadAttention, grouped).getConfig())
        .toEqual(jasmine.objectContaining({name: 'gqa', numHeads: 4, keyDim: 3, numKvHeads: 2}));
  });
});

describe('Registration of FlashMultiHeadAttention', () => {
  const registered = () => tf.serialization.SerializationMap.getMap().classNameMap;

  it('takes two names of its own and no other, Keras\' MultiHeadAttention least of all', () => {
    const ours = Object.entries(registered()).filter(([, [cls]]) => cls.prototype instanceof tf.layers.Layer &&
        Object.hasOwn(cls, 'registeredBy')); // a subclass of the examples inherits it
    expect(ours.map(([name]) => name).sort()).toEqual(['FlashAttentionMask', 'FlashMultiHeadAttention']);
    expect(registered()['FlashMultiHeadAttention'][0] === FlashMultiHeadAttention as unknown).toBeTrue();
    expect(tf.serialization.getRegisteredName(FlashMultiHeadAttention as never))
        .toBe('tfjs-flash-attention>FlashMultiHeadAttention');
  });

  it('a second copy of the package changes nothing, and says nothing', () => {
    const warn = spyOn(console, 'warn');
    class Copy extends FlashMultiHeadAttention {
      static override className = 'FlashMultiHeadAttention';
    }
    registerOnce(Copy as never);
    expect(registered()['FlashMultiHeadAttention'][0] === FlashMultiHeadAttention as unknown).toBeTrue();
    expect(warn).not.toHaveBeenCalled();
  });

  it('another package\'s class of the same name stays, with a warning', () => {
    const warn = spyOn(console, 'warn');
    class Theirs extends tf.layers.Layer {
      static className = 'NameTakenBefore';
    }
    class Ours extends tf.layers.Layer {
      static className = 'NameTakenBefore';
    }
    tf.serialization.registerClass(Theirs as never);
    registerOnce(Ours as never);
    expect(registered()['NameTakenBefore'][0] === Theirs as unknown).toBeTrue();
    expect(warn).toHaveBeenCalledOnceWith(jasmine.stringMatching(/another class is registered as 'NameTakenBefore'/));
    delete registered()['NameTakenBefore'];
  });
});
