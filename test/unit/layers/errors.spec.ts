import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';

import {scopeEachSpec} from './scope.js';

type Args = ConstructorParameters<typeof FlashMultiHeadAttention>[0];

const message = (rest: string) => `FlashMultiHeadAttention: expected ${rest}`;
const FIELDS = 'numHeads, keyDim, valueDim, numKvHeads, dropout, useBias, outputShape, useCausalMask, seed, ' +
    'attentionAxes, kernelInitializer, biasInitializer, kernelRegularizer, biasRegularizer, kernelConstraint, ' +
    'biasConstraint';

describe('The constructor of FlashMultiHeadAttention refuses', () => {
  scopeEachSpec();

  const cases: Array<[Record<string, unknown>, string]> = [
    [{numHeads: 0}, 'a positive integer for numHeads, received 0'],
    [{numHeads: 1.5}, 'a positive integer for numHeads, received 1.5'],
    [{numHeads: undefined}, 'a positive integer for numHeads, received undefined'],
    [{numHeads: '8'}, 'a positive integer for numHeads, received \'8\''],
    [{keyDim: 0}, 'an integer from 1 to 256 for keyDim, received 0'],
    [{keyDim: 257}, 'an integer from 1 to 256 for keyDim, received 257'],
    [{keyDim: null}, 'an integer from 1 to 256 for keyDim, received null'],
    [{valueDim: 300}, 'an integer from 1 to 256 for valueDim, received 300'],
    [{numKvHeads: 3}, 'a divisor of numHeads, 4 for numKvHeads, received 3'],
    [{numKvHeads: 8}, 'a divisor of numHeads, 4 for numKvHeads, received 8'],
    [{numKvHeads: -1}, 'a positive integer for numKvHeads, received -1'],
    [{dropout: 1}, 'a probability in [0, 1) for dropout, received 1'],
    [{dropout: -0.1}, 'a probability in [0, 1) for dropout, received -0.1'],
    [{dropout: NaN}, 'a probability in [0, 1) for dropout, received NaN'],
    [{dropout: '0.1'}, 'a probability in [0, 1) for dropout, received \'0.1\''],
    [{useBias: 1}, 'a boolean for useBias, received 1'],
    [{useCausalMask: 'yes'}, 'a boolean for useCausalMask, received \'yes\''],
    [{outputShape: 0}, 'a positive integer or an array of them for outputShape, received 0'],
    [{outputShape: []}, 'a positive integer or an array of them for outputShape, received []'],
    [{outputShape: [4, null]}, 'a positive integer or an array of them for outputShape, received [4,null]'],
    [{seed: -1}, 'an integer in [0, 2^53) for seed, received -1'],
    [{seed: 2 ** 53}, 'an integer in [0, 2^53) for seed, received 9007199254740992'],
    [{attentionAxes: [1, 2]}, '[1], the only axis between batch and features for attentionAxes, received [1,2]'],
    [{attentionAxes: 2}, '[1], the only axis between batch and features for attentionAxes, received 2'],
    [{attentionAxes: []}, '[1], the only axis between batch and features for attentionAxes, received []'],
    [{returnAttentionScores: true}, 'nothing (not supported) for returnAttentionScores, received true'],
    [{slidingWindow: 5}, 'nothing (not supported) for slidingWindow, received 5'],
    [{useGate: true}, 'nothing (not supported) for useGate, received true'],
    [{activityRegularizer: 'l1l2'}, 'nothing (not supported) for activityRegularizer, received \'l1l2\''],
    [{dtype: 'int32'}, '\'float32\' (tfjs has no other float) for dtype, received \'int32\''],
    [{numKVHeads: 2}, `one of ${FIELDS} for the name of a config field, received 'numKVHeads'`],
    [{kernelInitializer: 'nope'},
     'an initializer that tfjs knows (Unknown initializer: nope) for kernelInitializer, received \'nope\''],
    [{biasInitializer: 'nope'},
     'an initializer that tfjs knows (Unknown initializer: nope) for biasInitializer, received \'nope\''],
    [{kernelRegularizer: 'nope'},
     'a regularizer that tfjs knows (Unknown regularizer: nope) for kernelRegularizer, received \'nope\''],
    [{biasConstraint: 'nope'},
     'a constraint that tfjs knows (Unknown constraint: nope) for biasConstraint, received \'nope\''],
  ];
  for (const [change, rest] of cases) {
    it(`${Object.keys(change)[0]}: ${String(Object.values(change)[0])}`, () => {
      const make = () => new FlashMultiHeadAttention({numHeads: 4, keyDim: 8, ...change} as Args);
      expect(make).toThrowError(message(rest));
    });
  }

  it('no configuration', () => {
    for (const [value, name] of [[undefined, 'undefined'], [null, 'null'], [8, '8'], [[4, 8], '[4,8]']] as const) {
      expect(() => new FlashMultiHeadAttention(value as never)).toThrowError(
          message(`an object with numHeads and keyDim for the configuration, received ${name}`));
    }
    expect(() => FlashMultiHeadAttention.fromConfig(FlashMultiHeadAttention, 3 as never))
        .toThrowError(message('an object for config, received 3'));
  });

  it('nothing of what is off or as the only one possible', () => {
    expect(() => new FlashMultiHeadAttention({
      numHeads: 4, keyDim: 8, attentionAxes: [1], valueDim: null, numKvHeads: null, dropout: null, useBias: null,
      outputShape: null, useCausalMask: null, seed: null, kernelInitializer: null, kernelRegularizer: null,
      activityRegularizer: null, useGate: false, slidingWindow: null, flashAttention: true,
    } as Args)).not.toThrow();
    expect(() => new FlashMultiHeadAttention({numHeads: 4, keyDim: 256, attentionAxes: 1})).not.toThrow();
  });
});

describe('FlashMultiHeadAttention refuses inputs:', () => {
  scopeEachSpec();

  const layer = () => new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
  const order = '[query, value, key] of rank 3, then masks of rank 2 to 4 for the inputs, received';
  const cases: Array<[string, number[][], string]> = [
    ['a lone rank 2', [[2, 6]], `${order} [[2,6]]`],
    ['rank 4 as query', [[2, 3, 4, 6]], `${order} [[2,3,4,6]]`],
    ['rank 1 as mask', [[2, 3, 6], [3]], `${order} [[2,3,6],[3]]`],
    ['rank 5 as mask', [[2, 3, 6], [1, 1, 1, 3, 3]], `${order} [[2,3,6],[1,1,1,3,3]]`],
    ['another batch size in the value', [[2, 3, 6], [1, 3, 6]],
     'the batch size of the query, 2 for value, received [1,3,6]'],
    ['another batch size in the key', [[2, 3, 6], [2, 3, 6], [4, 3, 6]],
     'the batch size of the query, 2 for key, received [4,3,6]'],
    ['a key that is longer than the value', [[2, 3, 6], [2, 4, 6], [2, 5, 6]],
     'the length of the value, 4 (axis 1) for key, received [2,5,6]'],
  ];
  for (const [what, shapes, rest] of cases) {
    it(`${what}, as tensors and in a graph`, () => {
      expect(() => layer().apply(shapes.map(shape => tf.zeros(shape)))).toThrowError(message(rest));
      expect(() => layer().apply(shapes.map(batchShape => tf.input({batchShape})))).toThrowError(message(rest));
    });
  }

  it('no inputs at all', () => {
    expect(() => layer().call([], {})).toThrowError(message(`${order} []`));
  });

  it('an unknown last axis', () => {
    expect(() => layer().apply(tf.input({shape: [3, null]})))
        .toThrowError(message('a known last axis for query, received [null,3,null]'));
    expect(() => layer().apply([tf.input({shape: [3, 4]}), tf.input({shape: [3, null]})]))
        .toThrowError(message('a known last axis for value, received [null,3,null]'));
  });

  it('last axes that it was not built for', () => {
    const built = layer();
    built.apply([tf.zeros([1, 2, 6]), tf.zeros([1, 2, 5])]);
    expect(() => built.apply(tf.zeros([1, 2, 6])))
        .toThrowError(message('the last axis that the layer was built with, 5 for value, received [1,2,6]'));
    expect(() => built.apply([tf.zeros([1, 2, 7]), tf.zeros([1, 2, 5])]))
        .toThrowError(message('the last axis that the layer was built with, 6 for query, received [1,2,7]'));
    expect(() => built.apply([tf.input({shape: [2, 6]}), tf.input({shape: [2, 5]}), tf.input({shape: [2, 4]})]))
        .toThrowError(message('the last axis that the layer was built with, 5 for key, received [null,2,4]'));
  });

  it('integers', () => {
    expect(() => layer().apply(tf.zeros([1, 2, 6], 'int32')))
        .toThrowError(message('a float32 tensor of rank 3 for query, received int32 [1,2,6]'));
    expect(() => layer().apply([tf.zeros([1, 2, 6]), tf.zeros([1, 2, 6], 'bool')]))
        .toThrowError(message('a float32 tensor of rank 3 for value, received bool [1,2,6]'));
  });
});

describe('FlashMultiHeadAttention refuses call arguments:', () => {
  scopeEachSpec();

  const NAMES = 'mask, queryMask, valueMask, keyMask, attentionMask, training, useCausalMask, returnAttentionScores';
  const call = (options: Record<string, unknown>) => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    return () => layer.apply([tf.zeros([2, 3, 6]), tf.zeros([2, 5, 6])], options);
  };
  const zeros = (...shape: number[]) => tf.zeros(shape, 'bool');
  const shapes = '[T,S] = [3,5], [B,T,S] = [2,3,5], or a shape that broadcasts to [B,Hq,T,S] = [2,2,3,5] ' +
      'for attentionMask, received bool';
  const cases: Array<[string, () => Record<string, unknown>, string]> = [
    ['an unknown one', () => ({attention_mask: null}),
     `one of ${NAMES} for the name of a call argument, received 'attention_mask'`],
    ['scores', () => ({returnAttentionScores: true}),
     'false (the scores are never stored) for returnAttentionScores, received true'],
    ['training that is no boolean', () => ({training: 1}), 'a boolean for training, received 1'],
    ['useCausalMask that is no boolean', () => ({useCausalMask: 'no'}), 'a boolean for useCausalMask, received \'no\''],
    ['a mask that is no tensor', () => ({valueMask: [[1]]}),
     'a tensor that is not disposed for valueMask, received [[1]]'],
    ['tfjs\' mask that is no tensor', () => ({mask: 3}), 'a tensor or an array of them for mask, received 3'],
    ['a disposed mask', () => {
      const keyMask = zeros(2, 5);
      keyMask.dispose();
      return {keyMask};
    }, 'a tensor that is not disposed for keyMask, received a disposed tensor'],
    ['tfjs\' mask when disposed', () => {
      const mask = zeros(2, 3);
      mask.dispose();
      return {mask};
    }, 'a tensor that is not disposed for queryMask, received a disposed tensor'],
    ['a query mask of the value\'s length', () => ({queryMask: zeros(2, 5)}),
     'a mask of shape [2,3] for queryMask, received bool [2,5]'],
    ['a value mask of the query\'s length', () => ({valueMask: zeros(2, 3)}),
     'a mask of shape [2,5] for valueMask, received bool [2,3]'],
    ['a key mask of another batch', () => ({keyMask: zeros(1, 5)}),
     'a mask of shape [2,5] for keyMask, received bool [1,5]'],
    ['a padding mask of rank 1', () => ({valueMask: zeros(5)}),
     'a mask of shape [2,5] for valueMask, received bool [5]'],
    ['a padding mask of rank 3', () => ({valueMask: zeros(2, 2, 5)}),
     'a mask of shape [2,5] for valueMask, received bool [2,2,5]'],
    ['an attention mask the wrong way round', () => ({attentionMask: zeros(2, 5, 3)}), `${shapes} [2,5,3]`],
    ['an attention mask for other heads', () => ({attentionMask: zeros(2, 4, 3, 5)}), `${shapes} [2,4,3,5]`],
    ['an attention mask of rank 1', () => ({attentionMask: zeros(5)}), `${shapes} [5]`],
  ];
  for (const [what, options, rest] of cases) {
    it(what, () => {
      expect(call(options())).toThrowError(message(rest));
    });
  }

  it('in a graph, where tfjs would drop them when the model runs', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    const x = tf.input({shape: [3, 6]});
    const dropped = (remedy: string) => `nothing (a model that runs does not pass it on: ${remedy}) for`;
    expect(() => layer.apply(x, {useCausalMask: true})).toThrowError(
        message(`${dropped('set useCausalMask in the constructor')} useCausalMask, received true`));
    expect(() => layer.apply(x, {training: true})).toThrowError(
        message(`${dropped('model.fit trains and model.predict does not')} training, received true`));
    for (const name of ['mask', 'queryMask', 'valueMask', 'keyMask', 'attentionMask']) {
      expect(() => layer.apply(x, {[name]: tf.zeros([2, 3], 'bool')})).toThrowError(message(
          `${dropped('give the mask as an input, after query, value and key')} ${name}, received bool [2,3]`));
    }
    expect(() => layer.apply(x, {returnAttentionScores: true}))
        .toThrowError(message('false (the scores are never stored) for returnAttentionScores, received true'));
    expect(() => layer.apply(x, {useCausalMask: false, returnAttentionScores: false, valueMask: null})).not.toThrow();
  });

  it('an attention mask of rank 3 that is taken for the key, as documented, when its shape is not a key\'s', () => {
    const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 3});
    expect(() => layer.apply([tf.zeros([2, 3, 6]), tf.zeros([2, 5, 6]), tf.zeros([2, 3, 5])]))
        .toThrowError(message('the length of the value, 5 (axis 1) for key, received [2,3,5]'));
  });
});
