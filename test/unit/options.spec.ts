import * as tf from '@tensorflow/tfjs';

import {flashAttention, flashAttentionWithKvCache, flashAttentionWithLse} from '../../src/index.js';
import {describe as rendered, invalid} from '../../src/op/options.js';

describe('the message of an error about arguments', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('says what was expected, for which name, and what was received', () => {
    expect(invalid('a boolean', 'causal', 1).message)
        .toBe('flashAttention: expected a boolean for causal, received 1');
  });

  it('renders any value on a single, short line', () => {
    const disposed = tf.scalar(1);
    disposed.dispose();
    const values: Array<[unknown, string]> = [
      [undefined, 'undefined'], [null, 'null'], [NaN, 'NaN'], [-0.5, '-0.5'], [true, 'true'], ['a', '\'a\''],
      [10n, '10'], [Symbol('s'), 'Symbol(s)'], [() => 1, 'a function'],
      [[1, ['a', [null]]], '[1,[\'a\',[null]]]'], [[], '[]'],
      [new Array(8).fill(0), '[0,0,0,0,0,0,0,0]'], [new Array(9).fill(0), 'an array of 9'],
      [Float32Array.of(1), 'Float32Array'], [{a: 1, b: {}}, 'an object with keys [a,b]'],
      [{}, 'an object with keys []'],
      [disposed, 'a disposed tensor'],
    ];
    for (const [value, text] of values) {
      expect(rendered(value)).toBe(text);
    }
    tf.tidy(() => {
      expect(rendered(tf.ones([2, 3], 'bool'))).toBe('bool [2,3]');
      expect(rendered([tf.scalar(1), 2])).toBe('[float32 [],2]');
    });
  });
});

describe('what has no gradient', () => {
  beforeAll(() => tf.setBackend('cpu'));

  const refused: Array<[string, () => unknown, string]> = [
    ['slopes', () => {
      const x = tf.ones<tf.Rank.R4>([1, 2, 2, 4]);
      return tf.grad((slopes: tf.Tensor) => flashAttention(x, x, x, {alibiSlopes: slopes}))(tf.ones([2]));
    }, 'flashAttention: alibiSlopes has no gradient; slopes that are trained go into a bias'],
    ['attention over a cache', () => {
      const cache = tf.ones([1, 3, 2, 4]);
      return tf.grad((q: tf.Tensor) => flashAttentionWithKvCache(q, cache, cache))(tf.ones([1, 2, 2, 4]));
    }, 'flashAttention: attention over a cache has no gradient'],
  ];
  for (const [what, call, message] of refused) {
    it(`says so: ${what}`, () => {
      expect(() => tf.tidy(() => call() as tf.Tensor)).toThrowError(message);
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

  it('is every option at the ends of its range', () => {
    tf.tidy(() => {
      const x = tf.randomNormal<tf.Rank.R4>([2, 3, 2, 4], 0, 1, 'float32', 5);
      const plain = flashAttention(x, x, x).dataSync();
      const neutral = flashAttention(x, x, x, {
        layout: 'bnhd', causal: false, causalAlignment: 'top-left', windowSize: [2 ** 31 - 1, -1], softmaxScale: 0.5,
        softcap: 0, alibiSlopes: [0, 0], sinks: [-Infinity, -Infinity], dropoutP: 0, seed: 2 ** 53 - 1,
        computeType: 'bfloat16', bias: [0], mask: [true], queryLengths: [3, 3], keyLengths: Int32Array.of(3, 3),
      });
      expect(neutral.dataSync()).toEqual(plain);
      const undef = {
        layout: undefined, causal: undefined, windowSize: undefined, softcap: undefined, alibiSlopes: undefined,
        sinks: undefined, bias: undefined, mask: undefined, queryLengths: undefined, keyLengths: undefined,
      };
      expect(flashAttention(x, x, x, undef).dataSync()).toEqual(plain);
      const none = flashAttention(x, x, x, {queryLengths: [0, 3], keyLengths: tf.tensor1d([3, 0], 'int32')});
      expect(none.dataSync()).toEqual(new Float32Array(x.size));
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
