import {createRequire} from 'node:module';

import * as tf from '@tensorflow/tfjs';

import {extend, flashAttention, flashAttentionWithLse} from '../../src/index.js';
import * as tfWithAttention from '../../src/tf.js';

describe('ways to reach the op', () => {
  let x: tf.Tensor4D;
  let expected: tf.TypedArray;

  beforeAll(async () => {
    await tf.setBackend('cpu');
    x = tf.randomNormal([1, 4, 2, 3]);
    expected = tf.tidy(() => flashAttention(x, x, x, {causal: true}).dataSync());
  });

  afterAll(() => x.dispose());

  it('as tf.flashAttention of tfjs-flash-attention/tf, beside all of tfjs-core', () => {
    expect(tf.tidy(() => tfWithAttention.flashAttention(x, x, x, {causal: true}).dataSync())).toEqual(expected);
    expect(tfWithAttention.matMul).toBe(tf.matMul);
  });

  it('chained', () => {
    expect(tf.tidy(() => x.flashAttention(x, x, {causal: true}).dataSync())).toEqual(expected);
    const {output, lse} = x.flashAttentionWithLse(x, x, {causal: true});
    expect(output.dataSync()).toEqual(expected);
    expect(lse.shape).toEqual([1, 2, 4]);
    tf.dispose([output, lse]);
  });

  it('on the object of CommonJS tfjs', () => {
    const caller = createRequire(import.meta.url)('@tensorflow/tfjs') as typeof tf;
    const extended = extend(caller);
    expect(extended as unknown).toBe(caller);
    expect(tf.tidy(() => extended.flashAttention(x, x, x, {causal: true}).dataSync())).toEqual(expected);
    expect(extended.flashAttentionWithLse).toBe(flashAttentionWithLse);
  });

  it('refuses what is not tfjs or cannot be extended', () => {
    expect(() => extend(undefined as unknown as object))
        .toThrowError(/expected the tfjs object for tf, received undefined/);
    expect(() => extend({})).toThrowError(/expected the tfjs object for tf, received object/);
    expect(() => extend(tfWithAttention)).toThrowError(/received an ES module namespace; use `import \* as tf/);
  });
});
