import * as tf from '@tensorflow/tfjs';

import {flashAttention, flashAttentionWithLse} from '../../src/index.js';

type Anything = unknown;
const call = flashAttention as (...args: Anything[]) => tf.Tensor;

describe('bad input', () => {
  let q: tf.Tensor4D;
  let k: tf.Tensor4D;
  let v: tf.Tensor4D;

  beforeAll(async () => {
    await tf.setBackend('cpu');
    q = tf.ones([2, 3, 4, 8]);
    k = tf.ones([2, 5, 2, 8]);
    v = tf.ones([2, 5, 2, 6]);
  });

  afterAll(() => tf.dispose([q, k, v]));

  const bad: Array<[string, () => Anything[], string]> = [
    ['no q', () => [undefined, k, v], 'a tensor or a nested array for q, received undefined'],
    ['q null', () => [null, k, v], 'a tensor or a nested array for q, received null'],
    ['q a number', () => [1, k, v], 'a tensor or a nested array for q, received 1'],
    ['q a string', () => ['q', k, v], 'a tensor or a nested array for q, received \'q\''],
    ['a ragged q', () => [[[[[1], [2, 3]]]], k, v],
     'a nested array with rows of equal lengths for q, received [[[[1],[2,3]]]]'],
    ['no k', () => [q, undefined, v], 'a tensor or a nested array for k, received undefined'],
    ['no v', () => [q, k], 'a tensor or a nested array for v, received undefined'],
    ['q of rank 3', () => [tf.ones([3, 4, 8]), k, v],
     'a float32 tensor of rank 4, [B,Nq,Hq,D] for q, received float32 [3,4,8]'],
    ['k of rank 2', () => [q, tf.ones([5, 8]), v],
     'a float32 tensor of rank 4, [B,Nk,Hkv,D] for k, received float32 [5,8]'],
    ['v of rank 5', () => [q, k, tf.ones([1, 2, 5, 2, 6])],
     'a float32 tensor of rank 4, [B,Nk,Hkv,Dv] for v, received float32 [1,2,5,2,6]'],
    ['v of rank 3 in the other layout', () => [q, k, tf.ones([2, 5, 6]), {layout: 'bhnd'}],
     'a float32 tensor of rank 4, [B,Hkv,Nk,Dv] for v, received float32 [2,5,6]'],
    ['int32 q', () => [tf.ones([2, 3, 4, 8], 'int32'), k, v],
     'a float32 tensor of rank 4, [B,Nq,Hq,D] for q, received int32 [2,3,4,8]'],
    ['bool k', () => [q, tf.ones([2, 5, 2, 8], 'bool'), v],
     'a float32 tensor of rank 4, [B,Nk,Hkv,D] for k, received bool [2,5,2,8]'],
    ['a disposed q', () => {
      const t = tf.ones([2, 3, 4, 8]);
      t.dispose();
      return [t, k, v];
    }, 'a tensor that is not disposed for q, received float32 [2,3,4,8]'],
    ['another batch in k', () => [q, tf.ones([3, 5, 2, 8]), v], 'the batch size of q, 2 for k, received [3,5,2,8]'],
    ['another batch in v', () => [q, k, tf.ones([1, 5, 2, 6])], 'the batch size of q, 2 for v, received [1,5,2,6]'],
    ['another head size in k', () => [q, tf.ones([2, 5, 2, 7]), v],
     'the head size of q, 8 (last axis) for k, received [2,5,2,7]'],
    ['another length in v', () => [q, k, tf.ones([2, 4, 2, 6])],
     'the length of k, 5 (layout \'bnhd\') for v, received [2,4,2,6]'],
    ['other heads in v', () => [q, k, tf.ones([2, 5, 4, 6])],
     'the number of heads of k, 2 (layout \'bnhd\') for v, received [2,5,4,6]'],
    ['heads that do not divide', () => [q, tf.ones([2, 5, 3, 8]), tf.ones([2, 5, 3, 6])],
     'a number of heads that divides the 4 of q (layout \'bnhd\') for k, received [2,5,3,8]'],
    ['no key heads', () => [q, tf.ones([2, 5, 0, 8]), tf.ones([2, 5, 0, 6])],
     'a number of heads that divides the 4 of q (layout \'bnhd\') for k, received [2,5,0,8]'],
    ['head size 0', () => [tf.ones([2, 3, 4, 0]), tf.ones([2, 5, 2, 0]), v],
     'a head size from 1 to 256 (last axis) for q, received [2,3,4,0]'],
    ['head size 257', () => [tf.ones([1, 1, 1, 257]), tf.ones([1, 1, 1, 257]), tf.ones([1, 1, 1, 1])],
     'a head size from 1 to 256 (last axis) for q, received [1,1,1,257]'],
    ['value size 300', () => [q, k, tf.ones([2, 5, 2, 300])],
     'a head size from 1 to 256 (last axis) for v, received [2,5,2,300]'],
    ['options a number', () => [q, k, v, 3], 'an object for options, received 3'],
    ['options null', () => [q, k, v, null], 'an object for options, received null'],
    ['options an array', () => [q, k, v, []], 'an object for options, received []'],
    ['options a tensor', () => [q, k, v, q], 'an object for options, received float32 [2,3,4,8]'],
    ['a misspelt option', () => [q, k, v, {casual: true}],
     'one of layout, causal, causalAlignment, softmaxScale, mask, dropoutP, seed, computeType, windowSize, softcap, ' +
       'alibiSlopes, bias, queryLengths, keyLengths, sinks for the name of an option, received \'casual\''],
    ['an unknown layout', () => [q, k, v, {layout: 'nbhd'}], 'one of \'bnhd\', \'bhnd\' for layout, received \'nbhd\''],
    ['causal a number', () => [q, k, v, {causal: 1}], 'a boolean for causal, received 1'],
    ['an unknown alignment', () => [q, k, v, {causalAlignment: 'top'}],
     'one of \'bottom-right\', \'top-left\' for causalAlignment, received \'top\''],
    ['a NaN scale', () => [q, k, v, {softmaxScale: NaN}], 'a finite number for softmaxScale, received NaN'],
    ['a scale in words', () => [q, k, v, {softmaxScale: 'big'}], 'a finite number for softmaxScale, received \'big\''],
    ['a dropout of 1', () => [q, k, v, {dropoutP: 1}], 'a probability in [0, 1) for dropoutP, received 1'],
    ['a negative dropout', () => [q, k, v, {dropoutP: -0.1}], 'a probability in [0, 1) for dropoutP, received -0.1'],
    ['a fractional seed', () => [q, k, v, {seed: 0.5}], 'an integer in [0, 2^53) for seed, received 0.5'],
    ['a negative seed', () => [q, k, v, {seed: -1}], 'an integer in [0, 2^53) for seed, received -1'],
    ['an unknown compute type', () => [q, k, v, {computeType: 'float64'}],
     'one of \'float32\', \'tensorfloat32\', \'float16\', \'bfloat16\' for computeType, received \'float64\''],
    ['a float mask', () => [q, k, v, {mask: tf.ones([3, 5])}],
     'a bool tensor that broadcasts to [B,Hq,Nq,Nk] for mask, received float32 [3,5]'],
    ['a mask of rank 5', () => [q, k, v, {mask: tf.ones([1, 1, 1, 3, 5], 'bool')}],
     'a bool tensor that broadcasts to [B,Hq,Nq,Nk] for mask, received bool [1,1,1,3,5]'],
    ['a mask of another size', () => [q, k, v, {mask: tf.ones([3, 4], 'bool')}],
     'a shape that broadcasts to [B,Hq,Nq,Nk] = [2,4,3,5] for mask, received [1,1,3,4]'],
    ['a mask that is no tensor', () => [q, k, v, {mask: true}],
     'a tensor or a nested array for mask, received true'],
    ['windowSize', () => [q, k, v, {windowSize: [1, 1]}],
     'nothing (not supported in this version) for windowSize, received [1,1]'],
    ['softcap', () => [q, k, v, {softcap: 30}], 'nothing (not supported in this version) for softcap, received 30'],
    ['alibiSlopes', () => [q, k, v, {alibiSlopes: [1, 2, 3, 4]}],
     'nothing (not supported in this version) for alibiSlopes, received [1,2,3,4]'],
    ['bias', () => [q, k, v, {bias: tf.ones([3, 5])}],
     'nothing (not supported in this version) for bias, received float32 [3,5]'],
    ['queryLengths', () => [q, k, v, {queryLengths: [1, 2]}],
     'nothing (not supported in this version) for queryLengths, received [1,2]'],
    ['keyLengths', () => [q, k, v, {keyLengths: [1, 2]}],
     'nothing (not supported in this version) for keyLengths, received [1,2]'],
    ['sinks', () => [q, k, v, {sinks: [1, 2, 3, 4]}],
     'nothing (not supported in this version) for sinks, received [1,2,3,4]'],
  ];

  for (const [name, args, message] of bad) {
    it(name, () => {
      tf.tidy(() => {
        const values = args();
        const before = tf.memory().numTensors;
        expect(() => call(...values)).toThrowError(`flashAttention: expected ${message}`);
        expect(tf.memory().numTensors).toBe(before);
      });
    });
  }
});

describe('good input', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('may be nested arrays', () => {
    const one = [[[[1, 2]]]];
    const result = tf.tidy(() => flashAttention(one, one, [[[[5]]]], {mask: [[true]]}).arraySync());
    expect(result).toEqual([[[[5]]]]);
  });

  it('takes a mask of lower rank as numpy does', () => {
    tf.tidy(() => {
      const x = tf.ones<tf.Rank.R4>([1, 2, 1, 2]);
      const v = tf.tensor4d([1, 1, 3, 3], [1, 2, 1, 2]);
      expect(flashAttention(x, x, v, {mask: tf.tensor1d([false, true], 'bool')}).dataSync()).toEqual(
          Float32Array.of(3, 3, 3, 3));
    });
  });

  it('may be empty', () => {
    tf.tidy(() => {
      const nothing = flashAttentionWithLse(tf.ones([0, 2, 1, 4]), tf.ones([0, 3, 1, 4]), tf.ones([0, 3, 1, 5]));
      expect(nothing.output.shape).toEqual([0, 2, 1, 5]);
      expect(nothing.lse.shape).toEqual([0, 1, 2]);
      const noKeys = flashAttentionWithLse(tf.ones([1, 2, 1, 4]), tf.ones([1, 0, 1, 4]), tf.ones([1, 0, 1, 3]));
      expect(noKeys.output.dataSync()).toEqual(new Float32Array(6));
      expect(noKeys.lse.dataSync()).toEqual(Float32Array.of(-Infinity, -Infinity));
      const gradients = tf.grads((q, k, v) => flashAttention(q, k, v))(
          [tf.ones([1, 2, 1, 4]), tf.ones([1, 0, 1, 4]), tf.ones([1, 0, 1, 3])]);
      expect(gradients.map(g => g.shape)).toEqual([[1, 2, 1, 4], [1, 0, 1, 4], [1, 0, 1, 3]]);
      expect(gradients[0].dataSync()).toEqual(new Float32Array(8));
    });
  });

  it('draws another seed for every call without one, from tfjs\' generator', () => {
    tf.tidy(() => {
      const x = tf.randomNormal<tf.Rank.R4>([1, 32, 1, 8]);
      const [a, b] = [0, 1].map(() => flashAttention(x, x, x, {dropoutP: 0.5}).dataSync());
      expect(a).not.toEqual(b);
      const [c, d] = [0, 1].map(() => flashAttention(x, x, x, {dropoutP: 0.5, seed: 4}).dataSync());
      expect(c).toEqual(d);
    });
  });

  it('drops the same weights in the backward pass when the seed was drawn', () => {
    tf.tidy(() => {
      const x = tf.randomNormal<tf.Rank.R4>([1, 16, 1, 4]);
      const v = tf.randomNormal<tf.Rank.R4>([1, 16, 1, 4]);
      // Linear in v: f(v) = Σ v·df/dv holds only if both passes drop the same weights.
      const {value, grad} = tf.valueAndGrad((t: tf.Tensor) => tf.sum(flashAttention(x, x, t, {dropoutP: 0.5})))(v);
      expect(tf.sum(tf.mul(v, grad)).dataSync()[0]).toBeCloseTo(value.dataSync()[0], 4);
    });
  });
});
