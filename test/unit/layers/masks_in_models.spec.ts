import * as tf from '@tensorflow/tfjs';

import {FlashAttentionMask, FlashMultiHeadAttention} from '../../../src/layers/index.js';

import {distance} from './keras_fixture.js';
import {scopeEachSpec} from './scope.js';
import {IDS, IDS_MASK, LONG_IDS, LONG_MASK, maskedEmbedding, spy} from './spy_attention.js';

type Symbolic = tf.SymbolicTensor;

const classNames = (model: tf.LayersModel) => model.layers.map(layer => layer.getClassName());

describe('Masks of FlashMultiHeadAttention in a model that runs', () => {
  scopeEachSpec();

  it('self-attention: the sequence\'s own mask, over keys as [B,1,1,S] and over queries row by row', () => {
    const layer = spy();
    const model = tf.sequential({layers: [maskedEmbedding({inputLength: 3}), layer]});
    const output = model.predict(tf.tensor(IDS)) as tf.Tensor;
    expect(layer.last.maskShape).toEqual([2, 1, 1, 3]);
    expect(layer.last.mask).toEqual(IDS_MASK);
    const bias = layer.getWeights()[7];
    expect(distance(output.slice([0, 2, 0], [1, 1, 4]).reshape([4]), bias)).toBe(0);
    expect(distance(output.slice([0, 1, 0], [1, 1, 4]).reshape([4]), bias)).toBeGreaterThan(0);
  });

  it('makes no tensor with T·S elements from masks of query, value and key', async () => {
    const n = 64;
    const layer = new FlashMultiHeadAttention({numHeads: 1, keyDim: 2, useCausalMask: true});
    const [q, v] = [tf.randomNormal([1, n, 2]), tf.randomNormal([1, n, 2])];
    const mask = tf.greater(tf.randomUniform([1, n]), 0.3);
    const {kernels} = await tf.profile(() => layer.apply([q, v], {queryMask: mask, valueMask: mask}) as tf.Tensor);
    expect(kernels.some(kernel => kernel.name === 'FlashAttention')).toBeTrue();
    const largest = Math.max(...kernels.flatMap(kernel => kernel.outputShapes).map(s => s.reduce((a, b) => a * b, 1)));
    expect(largest).toBeLessThan(n * n / 8);
  });

  for (const [name, through] of Object.entries<(x: Symbolic) => Symbolic>({
    'straight from the Embedding': x => x,
    'through Dropout, LayerNormalization and Dense': x =>
        [tf.layers.dropout({rate: 0.1}), tf.layers.layerNormalization(), tf.layers.dense({units: 4})]
            .reduce((y, layer) => layer.apply(y) as Symbolic, x),
    'through two residuals': x => [1, 2].reduce(
        y => tf.layers.add().apply([y, tf.layers.dense({units: 4}).apply(y) as Symbolic]) as Symbolic, x),
    'through an LSTM that returns sequences': x =>
        tf.layers.lstm({units: 4, returnSequences: true}).apply(x) as Symbolic,
    'through another attention layer': x => spy().apply([x, x]) as Symbolic,
  })) {
    it(`cross-attention sees the value's mask ${name}`, () => {
      const [x, y] = [tf.input({shape: [3, 4]}), tf.input({shape: [5]})];
      const memory = through(maskedEmbedding().apply(y) as Symbolic);
      const layer = spy();
      const model = tf.model({inputs: [x, y], outputs: layer.apply([x, memory]) as Symbolic});
      model.predict([tf.randomNormal([2, 3, 4]), tf.tensor(LONG_IDS)]);
      expect(layer.last.mask).toEqual(LONG_MASK);
      model.apply([tf.randomNormal([2, 3, 4]), tf.tensor(LONG_IDS)], {training: true});
      expect(layer.last.mask).toEqual(LONG_MASK);
    });
  }

  it('several layers that attend to one memory share one mask tensor', () => {
    const [x, y] = [tf.input({shape: [3, 4]}), tf.input({shape: [5]})];
    const memory = maskedEmbedding().apply(y) as Symbolic;
    const layers = [spy(), spy(), spy()];
    const out = layers.reduce((h, layer) => layer.apply([h, memory]) as Symbolic, x);
    const model = tf.model({inputs: [x, y], outputs: out});
    model.predict([tf.randomNormal([2, 3, 4]), tf.tensor(LONG_IDS)]);
    layers.forEach(layer => expect(layer.last.mask).toEqual(LONG_MASK));
    expect(classNames(model).filter(name => name === 'FlashAttentionMask').length).toBe(1);
  });

  it('no mask tensor is made, and none arrives, where no mask can be', () => {
    const x = tf.input({shape: [3]});
    const y = tf.input({shape: [3, 4]});
    const plain = tf.layers.embedding({inputDim: 9, outputDim: 4}).apply(x) as Symbolic;
    const [dense, lstm] = [tf.layers.dense({units: 4}), tf.layers.lstm({units: 4, returnSequences: true})];
    let h = tf.layers.add().apply([plain, dense.apply(y) as Symbolic]) as Symbolic;
    h = tf.layers.concatenate().apply([h, lstm.apply(h) as Symbolic]) as Symbolic;
    h = spy().apply([h, h]) as Symbolic;
    // Behind these no mask is left: tfjs' Reshape passes none on.
    const cut = tf.layers.reshape({targetShape: [3, 4]}).apply(maskedEmbedding().apply(x)) as Symbolic;
    const layers = [spy(), spy()];
    const out = [h, cut].map((value, i) => layers[i].apply([y, value]) as Symbolic);
    const model = tf.model({inputs: [x, y], outputs: out});
    expect(classNames(model)).not.toContain('FlashAttentionMask');
    model.predict([tf.tensor(IDS), tf.randomNormal([2, 3, 4])]);
    layers.forEach(layer => expect(layer.last.mask).toBeUndefined());
  });

  it('masks of value and key are ANDed when they are different tensors', () => {
    const [x, y, z] = [tf.input({shape: [3, 4]}), tf.input({shape: [3]}), tf.input({shape: [3]})];
    const layer = spy();
    const [v, k] = [y, z].map(ids => maskedEmbedding().apply(ids) as Symbolic);
    const out = layer.apply([x, v, k]) as Symbolic;
    const model = tf.model({inputs: [x, y, z], outputs: out});
    model.predict([tf.randomNormal([2, 3, 4]), tf.tensor(IDS), tf.tensor([[1, 0, 1], [1, 1, 1]])]);
    expect(layer.last.mask).toEqual([1, 0, 0, 1, 0, 0]);
  });

  it('a query\'s mask alone leaves the keys unmasked and clears its rows', () => {
    const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [5, 4]})];
    const layer = spy({useBias: false});
    const q = maskedEmbedding().apply(x) as Symbolic;
    const model = tf.model({inputs: [x, y], outputs: layer.apply([q, y]) as Symbolic});
    const output = model.predict([tf.tensor(IDS), tf.randomNormal([2, 5, 4])]) as tf.Tensor;
    expect(layer.last.mask).toBeUndefined();
    expect([...tf.any(tf.notEqual(output, 0), -1).dataSync()]).toEqual(IDS_MASK);
  });

  it('does not take a mask that tfjs left over from another layer', () => {
    const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [3, 4]})];
    // tfjs runs the last input of the concatenation first, so the mask is in kwargs when the spy's turn comes.
    const masked = tf.layers.lstm({units: 4, returnSequences: true}).apply(maskedEmbedding().apply(x)) as Symbolic;
    const layer = spy();
    const plain = layer.apply(tf.layers.dense({units: 4}).apply(y)) as Symbolic;
    const sum = tf.layers.dot({axes: 2}).apply([plain, masked]) as Symbolic;
    const model = tf.model({inputs: [x, y], outputs: sum});
    model.predict([tf.tensor(IDS), tf.randomNormal([2, 3, 4])]);
    expect(layer.received[0]).withContext('what tfjs passed').toBeInstanceOf(tf.Tensor);
    expect(layer.last.mask).toBeUndefined();
  });

  it('does not take the mask of a layer inside a nested model either, which is disposed by then', () => {
    const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [3, 4]})];
    const encoder = tf.sequential({layers: [
      maskedEmbedding({inputLength: 3}),
      tf.layers.lstm({units: 4, returnSequences: true}),
    ]});
    const layer = spy();
    const plain = layer.apply(tf.layers.dense({units: 4}).apply(y)) as Symbolic;
    const out = tf.layers.dot({axes: 2}).apply([plain, encoder.apply(x) as Symbolic]) as Symbolic;
    // Training passes one object of call arguments to every layer, nested ones included.
    tf.model({inputs: [x, y], outputs: out}).apply([tf.tensor(IDS), tf.randomNormal([2, 3, 4])], {training: true});
    expect((layer.received[0] as tf.Tensor).isDisposed).toBeTrue();
    expect(layer.last.mask).toBeUndefined();
  });

  it('takes the mask of a nested model\'s first input, for every input that comes from it', () => {
    const inner = tf.input({shape: [3, 4]});
    const [own, cross] = [spy(), spy()];
    const h = own.apply([inner, inner]) as Symbolic;
    const projected = tf.layers.dense({units: 4}).apply(inner) as Symbolic;
    const block = tf.model({inputs: inner, outputs: cross.apply([h, projected]) as Symbolic});
    const x = tf.input({shape: [3]});
    const model = tf.model({inputs: x, outputs: block.apply(maskedEmbedding().apply(x)) as Symbolic});
    model.predict(tf.tensor(IDS));
    expect(own.last.mask).toEqual(IDS_MASK);
    expect(cross.last.mask).toEqual(IDS_MASK);
  });

  it('a mask tensor carries the mask of a nested model\'s second input, which tfjs does not', () => {
    const block = (withMask: boolean) => {
      const shapes = [[3, 4], [5, 4], ...withMask ? [[5]] : []];
      const inputs = shapes.map(shape => tf.input({shape}));
      const layer = spy();
      return {layer, model: tf.model({inputs, outputs: layer.apply(inputs) as Symbolic})};
    };
    const [x, y] = [tf.input({shape: [3, 4]}), tf.input({shape: [5]})];
    const memory = tf.layers.dense({units: 4}).apply(maskedEmbedding().apply(y)) as Symbolic;
    const inputs = [tf.randomNormal([2, 3, 4]), tf.tensor(LONG_IDS)];

    const without = block(false);
    tf.model({inputs: [x, y], outputs: without.model.apply([x, memory]) as Symbolic}).predict(inputs);
    expect(without.layer.last.mask).withContext('tfjs passes none').toBeUndefined();

    const withMask = block(true);
    const mask = new FlashAttentionMask().apply(memory) as Symbolic;
    tf.model({inputs: [x, y], outputs: withMask.model.apply([x, memory, mask]) as Symbolic}).predict(inputs);
    expect(withMask.layer.last.mask).toEqual(LONG_MASK);
  });

  it('a padding mask given as an input stands instead of the value\'s own', () => {
    const [x, y, m] = [tf.input({shape: [3, 4]}), tf.input({shape: [3]}), tf.input({shape: [3], dtype: 'bool'})];
    const layer = spy();
    const v = maskedEmbedding().apply(y) as Symbolic;
    const model = tf.model({inputs: [x, y, m], outputs: layer.apply([x, v, m]) as Symbolic});
    model.predict([tf.randomNormal([2, 3, 4]), tf.tensor(IDS), tf.tensor([[0, 1, 1], [1, 1, 1]], [2, 3], 'bool')]);
    expect(layer.last.mask).toEqual([0, 1, 1, 1, 1, 1]);
    expect(classNames(model)).not.toContain('FlashAttentionMask');
  });

  it('it stands instead of the key\'s own as well', () => {
    const [x, z, m] = [tf.input({shape: [3, 4]}), tf.input({shape: [3]}), tf.input({shape: [3]})];
    const layer = spy();
    const v = tf.layers.dense({units: 4}).apply(x) as Symbolic;
    const out = layer.apply([x, v, maskedEmbedding().apply(z) as Symbolic, m]) as Symbolic;
    const model = tf.model({inputs: [x, z, m], outputs: out});
    model.predict([tf.randomNormal([2, 3, 4]), tf.tensor(IDS), tf.tensor([[0, 1, 1], [1, 1, 1]])]);
    expect(layer.last.mask).toEqual([0, 1, 1, 1, 1, 1]);
  });

  it('attention masks come as inputs: rank 4 anywhere after the value, rank 3 after the key', () => {
    const allowed = [1, 0, 1, 1, 1, 0, 1, 1, 0];
    const x = tf.input({shape: [3, 4]});
    const run = (mask: Symbolic, shape: number[], inputs: (m: Symbolic) => Symbolic[]) => {
      const layer = spy();
      const model = tf.model({inputs: [x, mask], outputs: layer.apply(inputs(mask)) as Symbolic});
      model.predict([tf.randomNormal([1, 3, 4]), tf.tensor(allowed, shape)]);
      return layer.last;
    };
    expect(run(tf.input({shape: [1, 3, 3]}), [1, 1, 3, 3], m => [x, m]))
        .toEqual(jasmine.objectContaining({maskShape: [1, 1, 3, 3], mask: allowed}));
    expect(run(tf.input({shape: [3, 3]}), [1, 3, 3], m => [x, x, x, m]))
        .toEqual(jasmine.objectContaining({maskShape: [1, 1, 3, 3], mask: allowed}));
  });

  it('attention mask and padding are ANDed', () => {
    const [x, m] = [tf.input({shape: [3]}), tf.input({shape: [1, 3, 3]})];
    const e = maskedEmbedding().apply(x) as Symbolic;
    const layer = spy();
    const model = tf.model({inputs: [x, m], outputs: layer.apply([e, e, m]) as Symbolic});
    model.predict([tf.tensor(IDS), tf.tensor([1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1], [2, 1, 3, 3])]);
    expect(layer.last.mask).toEqual([1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
  });

  it('one tensor may go in several times and be read by others, where tfjs alone disposes it too early', () => {
    const x = tf.input({shape: [3]});
    const m = tf.input({shape: [3, 3]});
    const e = maskedEmbedding().apply(x) as Symbolic;
    const other = tf.layers.dense({units: 4}).apply(e) as Symbolic;
    const shapes: Symbolic[][] = [[e, e], [e, e, e], [e, other, e], [e, e, other], [other, e, e], [e, e, e, m]];
    for (const inputs of shapes) {
      const layer = spy();
      const sum = tf.layers.add().apply([e, layer.apply(inputs) as Symbolic]) as Symbolic;
      const model = tf.model({inputs: [x, m], outputs: sum});
      model.predict([tf.tensor(IDS), tf.ones([2, 3, 3])]);
      const expected = inputs.includes(m) ? IDS_MASK.slice(0, 3).concat(IDS_MASK.slice(0, 3), IDS_MASK.slice(0, 3),
                                                IDS_MASK.slice(3), IDS_MASK.slice(3), IDS_MASK.slice(3)) : IDS_MASK;
      expect(layer.last.mask).withContext(`${inputs.length} inputs`).toEqual(expected);
    }
  });

  it('inputs that only repeat the default are left out, and cost no copy', () => {
    const [x, y] = [tf.input({shape: [3, 4]}), tf.input({shape: [5, 4]})];
    const h = spy().apply([x, x, x]) as Symbolic;
    const model = tf.model({inputs: [x, y], outputs: spy().apply([h, y, y]) as Symbolic});
    expect(classNames(model)).toEqual(['InputLayer', 'SpyAttention', 'InputLayer', 'SpyAttention']);
  });

  it('a layer that several inputs go through keeps each one\'s mask', () => {
    const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [3]})];
    const e = maskedEmbedding();
    const layer = spy();
    const out = [x, y].map(ids => layer.apply(e.apply(ids)) as Symbolic);
    const model = tf.model({inputs: [x, y], outputs: out});
    model.predict([tf.tensor(IDS), tf.tensor([[1, 1, 1], [1, 1, 0]])]);
    expect(layer.seen.map(({mask}) => mask!.join('')).sort()).toEqual(['110100', '111110']);
  });

  it('passes the query\'s mask on, as [B,T] even where an Add has put an axis in front', () => {
    const x = tf.input({shape: [3]});
    const e = maskedEmbedding().apply(x) as Symbolic;
    const h = tf.layers.add().apply([e, spy().apply([e, e]) as Symbolic]) as Symbolic;
    // Concatenate fails on a mask of rank 3 (tfjs), so it tells that the layer before it gave [B,T].
    const both = tf.layers.concatenate().apply([spy().apply(h) as Symbolic, e]) as Symbolic;
    const last = spy();
    const model = tf.model({inputs: x, outputs: last.apply(both) as Symbolic});
    model.predict(tf.tensor(IDS));
    expect(last.last.mask).toEqual(IDS_MASK);
  });

  it('takes masks from Container.computeMask, which runs the graph another way', () => {
    const [x, y] = [tf.input({shape: [3]}), tf.input({shape: [5]})];
    const e = maskedEmbedding();
    const layer = spy();
    const out = layer.apply([x, y].map(ids => e.apply(ids) as Symbolic)) as Symbolic;
    const model = tf.model({inputs: [x, y], outputs: out});
    const [mask] = model.computeMask([tf.tensor(IDS), tf.tensor(LONG_IDS)]) as unknown as tf.Tensor[];
    expect(layer.last.mask).toEqual(LONG_MASK);
    expect((layer.received[0] as unknown[]).length).withContext('masks that tfjs passed').toBe(3);
    expect([...mask.dataSync()]).toEqual(IDS_MASK);
  });
});
