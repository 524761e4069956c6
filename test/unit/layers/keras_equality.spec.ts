import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';

import {expectEqual, kerasFixture, unpack, unpackAll} from './keras_fixture.js';
import type {LayerCase} from './keras_fixture.js';
import {scopeEachSpec} from './scope.js';

const CALL_NAMES: Record<string, string> = {
  query_mask: 'queryMask', value_mask: 'valueMask', key_mask: 'keyMask', attention_mask: 'attentionMask',
  use_causal_mask: 'useCausalMask',
};

const callOptions = (c: LayerCase) => Object.fromEntries(Object.entries(c.call).map(
    ([name, value]) => [CALL_NAMES[name], typeof value === 'boolean' ? value : unpack(value, 'bool')]));

for (const backend of ['cpu', 'wasm'] as const) {
  describe(`FlashMultiHeadAttention on ${backend} computes what Keras computes:`, () => {
    scopeEachSpec(backend);

    for (const c of kerasFixture.layers) {
      it(c.name, () => {
        const layer = FlashMultiHeadAttention.fromConfig(FlashMultiHeadAttention, c.config);
        const names = Object.keys(c.inputs) as Array<keyof LayerCase['inputs']>;
        const inputs = names.map(name => unpack(c.inputs[name]!));
        const options = callOptions(c);
        const run = (...tensors: tf.Tensor[]) =>
            layer.apply(tensors.length === 1 ? tensors[0] : tensors, options) as tf.Tensor;
        run(...inputs);
        layer.loadKerasWeights(unpackAll(c.weights), c.config.name);

        expectEqual('output', run(...inputs), c.output, c.kept);
        const loss = (...tensors: tf.Tensor[]) => tf.sum(tf.mul(run(...tensors), unpack(c.dy))) as tf.Scalar;
        tf.grads(loss)(inputs).forEach((gradient, i) =>
            expectEqual(`gradient of the ${names[i]}`, gradient, c.gradients[names[i]]));
        const variables = layer.trainableWeights.map(weight => weight.read() as tf.Variable);
        const {grads} = tf.variableGrads(() => loss(...inputs), variables);
        const paths = Object.keys(c.weights);
        expect(variables.length).toBe(paths.length);
        paths.forEach((path, i) => expectEqual(`gradient of ${path}`, grads[variables[i].name], c.gradients[path]));
      });
    }
  });
}

describe('FlashMultiHeadAttention and Keras', () => {
  scopeEachSpec();

  it('gives the output projection\'s bias where Keras\' result depends on its backend', () => {
    const dropped = kerasFixture.layers.filter(c => c.kept);
    expect(dropped.map(c => c.name)).toEqual(['every mask at once', 'a query that sees no key']);
    for (const c of dropped) {
      const layer = new FlashMultiHeadAttention(
          {numHeads: c.config['num_heads'] as number, keyDim: c.config['key_dim'] as number});
      const inputs = Object.values(c.inputs).map(packed => unpack(packed));
      layer.apply(inputs, callOptions(c));
      layer.loadKerasWeights(unpackAll(c.weights));
      const output = layer.apply(inputs, callOptions(c)) as tf.Tensor;
      const size = output.shape[2]!;
      const bias = layer.getWeights()[7].dataSync();
      const values = output.dataSync();
      let rows = 0;
      c.kept!.values.forEach((kept, row) => {
        if (!kept) {
          rows++;
          expect([...values.slice(row * size, (row + 1) * size)]).toEqual([...bias]);
          // Keras averages over hidden keys there: the documented difference is real.
          expect(c.output.values.slice(row * size, (row + 1) * size)).not.toEqual([...bias]);
        }
      });
      expect(rows).toBeGreaterThan(0);
    }
  });

  it('takes Keras\' weights in Keras\' order through setWeights', () => {
    const c = kerasFixture.layers[1];
    const layer = new FlashMultiHeadAttention(
        {numHeads: 2, keyDim: 3, valueDim: 5, outputShape: 4, weights: Object.values(c.weights).map(w => unpack(w))});
    const output = layer.apply(Object.values(c.inputs).map(packed => unpack(packed))) as tf.Tensor;
    expectEqual('output', output, c.output);
  });
});

describe('FlashMultiHeadAttention in a model, with masks from earlier layers, computes what Keras computes', () => {
  scopeEachSpec();
  type Symbolic = tf.SymbolicTensor;
  const mha = (name: string, useCausalMask = false) =>
      new FlashMultiHeadAttention({numHeads: 2, keyDim: 4, name, useCausalMask});
  const embedding = (name: string) => tf.layers.embedding({inputDim: 9, outputDim: 6, maskZero: true, name});

  const builders: Record<string, () => tf.LayersModel> = {
    'Embedding': () => {
      const x = tf.input({shape: [5]});
      const e = embedding('tokens').apply(x) as Symbolic;
      return tf.model({inputs: x, outputs: mha('mha').apply([e, e]) as Symbolic});
    },
    'Embedding and a residual': () => {
      const x = tf.input({shape: [5]});
      const e = embedding('tokens').apply(x) as Symbolic;
      const n = tf.layers.layerNormalization({name: 'norm'}).apply(e) as Symbolic;
      const h = tf.layers.add().apply([e, mha('first', true).apply([n, n]) as Symbolic]) as Symbolic;
      return tf.model({inputs: x, outputs: mha('second').apply([h, h, h]) as Symbolic});
    },
    'cross-attention to a normalised Embedding': () => {
      const [x, y] = [tf.input({shape: [4]}), tf.input({shape: [5]})];
      const q = embedding('target').apply(x) as Symbolic;
      const v = tf.layers.layerNormalization({name: 'norm'}).apply(embedding('source').apply(y)) as Symbolic;
      return tf.model({inputs: [x, y], outputs: mha('mha').apply([q, v]) as Symbolic});
    },
    'Masking': () => {
      const x = tf.input({shape: [5, 6]});
      const m = tf.layers.masking().apply(x) as Symbolic;
      return tf.model({inputs: x, outputs: mha('mha').apply(m) as Symbolic});
    },
  };

  for (const c of kerasFixture.models) {
    it(c.name, () => {
      const model = builders[c.name]();
      const weights = unpackAll(c.weights);
      model.loadWeights(weights);
      const inputs = c.inputs.map(packed => unpack(packed));
      const output = model.predict(inputs) as tf.Tensor;
      expectEqual('output', output, c.output, c.kept);
      // The same run as a model in training makes it.
      const trained = model.apply(inputs, {training: true}) as tf.Tensor;
      expectEqual('output in training', trained, c.output, c.kept);
    });
  }
});
