import * as tf from '@tensorflow/tfjs';

import {FlashAttentionMask} from '../../../src/layers/index.js';

import {scopeEachSpec} from './scope.js';
import {IDS, IDS_MASK, maskedEmbedding, spy} from './spy_attention.js';

type Symbolic = tf.SymbolicTensor;

describe('Masks of FlashMultiHeadAttention applied to tensors', () => {
  scopeEachSpec();

  it('takes the mask that Embedding and Masking put on their outputs, and hands it on', () => {
    const ids = tf.tensor(IDS);
    const e = maskedEmbedding().apply(ids) as tf.Tensor;
    const [own, cross, next] = [spy(), spy(), spy()];
    const output = own.apply(e) as tf.Tensor;
    expect(own.last.mask).toEqual(IDS_MASK);
    expect([...tf.any(tf.notEqual(output, own.getWeights()[7]), -1).dataSync()]).toEqual(IDS_MASK);
    const h = cross.apply([tf.randomNormal([2, 4, 4]), e]) as tf.Tensor;
    expect(cross.last.mask).toEqual(IDS_MASK);
    next.apply([tf.randomNormal([2, 1, 4]), h]);
    expect(next.last.mask).withContext('the query had none').toBeUndefined();
    next.apply([tf.randomNormal([2, 1, 4]), own.apply(e) as tf.Tensor]);
    expect(next.last.mask).toEqual(IDS_MASK);
  });

  it('null switches such a mask off, and another stands instead of it', () => {
    const e = maskedEmbedding().apply(tf.tensor(IDS)) as tf.Tensor;
    const layer = spy({useBias: false});
    const output = layer.apply(e, {queryMask: null, valueMask: null}) as tf.Tensor;
    expect(layer.last.mask).toBeUndefined();
    expect(tf.all(tf.notEqual(output, 0)).dataSync()[0]).toBe(1);
    layer.apply(e, {valueMask: tf.tensor([[0, 1, 1], [1, 1, 1]], [2, 3], 'bool')});
    expect(layer.last.mask).toEqual([0, 1, 1, 1, 1, 1]);
  });

  it('refuses such a mask when it has been disposed, instead of attending to padding', () => {
    const e = tf.tidy(() => maskedEmbedding().apply(tf.tensor(IDS)) as tf.Tensor);
    expect(() => spy().apply([tf.randomNormal([2, 4, 4]), e]))
        .toThrowError(/expected a mask that is not disposed .* for the mask on the value, received a disposed tensor/);
    const layer = spy();
    layer.apply([tf.randomNormal([2, 4, 4]), e], {valueMask: null});
    expect(layer.last.mask).toBeUndefined();
    layer.apply(e, {queryMask: null, valueMask: null});
  });

  it('`mask` is the mask of a lone sequence, or an array with one for each input', () => {
    const layer = spy();
    const mask = tf.tensor(IDS_MASK, [2, 3], 'bool');
    layer.apply(tf.randomNormal([2, 3, 4]), {mask});
    expect(layer.last.mask).toEqual(IDS_MASK);
    layer.apply([tf.randomNormal([2, 5, 4]), tf.randomNormal([2, 3, 4])], {mask: [null, mask]});
    expect(layer.last.mask).toEqual(IDS_MASK);
  });

  it('`mask` with a bare tensor is meant, also where no mask could come from the graph that the layer is in', () => {
    const layer = spy();
    layer.apply(tf.layers.reshape({targetShape: [3, 4]}).apply(tf.input({shape: [12]})) as Symbolic);
    layer.apply(tf.randomNormal([2, 3, 4]), {mask: tf.tensor(IDS_MASK, [2, 3], 'bool')});
    expect(layer.last.mask).toEqual(IDS_MASK);
  });

  it('masks may be numbers, and an attention mask may lack batch and heads', () => {
    const layer = spy();
    layer.apply(tf.randomNormal([2, 3, 4]), {attentionMask: tf.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])});
    expect(layer.last).toEqual(jasmine.objectContaining({maskShape: [1, 1, 3, 3], mask: [1, 0, 0, 1, 1, 0, 1, 1, 1]}));
    layer.apply(tf.randomNormal([2, 3, 4]), {valueMask: tf.tensor([[2, 0, 0.5], [1, 1, 0]])});
    expect(layer.last.mask).toEqual([1, 0, 1, 1, 1, 0]);
  });

  it('useCausalMask of a call stands instead of the layer\'s', () => {
    const layer = spy({useCausalMask: true});
    const x = tf.randomNormal([1, 3, 4]);
    layer.apply(x);
    layer.apply(x, {useCausalMask: false});
    layer.apply(x, {useCausalMask: null});
    expect(layer.seen.map(({causal}) => causal)).toEqual([true, false, true]);
  });
});

describe('FlashAttentionMask', () => {
  scopeEachSpec();

  it('gives the mask as float32 [B,L], ones without one', () => {
    const layer = new FlashAttentionMask();
    const plain = layer.apply(tf.randomNormal([2, 3, 4])) as tf.Tensor;
    expect([plain.dtype, plain.shape, [...plain.dataSync()]]).toEqual(['float32', [2, 3], [1, 1, 1, 1, 1, 1]]);
    const masked = layer.apply(maskedEmbedding().apply(tf.tensor(IDS)) as tf.Tensor) as tf.Tensor;
    expect([masked.dtype, [...masked.dataSync()]]).toEqual(['float32', IDS_MASK]);
  });

  it('refuses an input without a length', () => {
    expect(() => new FlashAttentionMask().apply(tf.input({batchShape: [3]})))
        .toThrowError('FlashMultiHeadAttention: expected one tensor of rank 2 or more for the input of ' +
                      'FlashAttentionMask, received [3]');
  });
});
