import * as tf from '@tensorflow/tfjs';

import {flashAttentionWithKvCache, KvCache} from '../../../src/index.js';
import {specMalformedCalls} from '../../support/malformed_calls.js';
import {nativeCalls} from '../../support/native_calls.js';
import {specVariants} from '../../support/variant_specs.js';

describe('variants of attention by the addon', () => {
  let before: number;

  beforeEach(() => {
    before = nativeCalls().tensorflow;
  });

  afterEach(() => {
    expect(nativeCalls().tensorflow).toBeGreaterThan(before);
  });

  specVariants('tensorflow');
});

describe('rows appended to a cache on tensorflow', () => {
  const rows = (value: number) => tf.fill<tf.Rank.R4>([1, 1, 1, 4], value);

  beforeAll(() => tf.setBackend('tensorflow'));

  it('are written into its own memory', () => {
    const {append: before} = nativeCalls();
    const cache = new KvCache({batch: 1, capacity: 3, keyHeads: 1, headSize: 4});
    const {dataId} = cache.k;
    for (const value of [1, 2]) {
      tf.tidy(() => cache.attend(rows(value), {k: rows(value), v: rows(10 * value)}).dataSync());
    }
    expect(nativeCalls().append).toBe(before + 2);
    expect(cache.k.dataId).toBe(dataId);
    expect([...cache.k.dataSync()]).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]);
    expect([...cache.v.dataSync()]).toEqual([10, 10, 10, 10, 20, 20, 20, 20, 0, 0, 0, 0]);
    cache.dispose();
  });

  it('are not written into a copy in another device\'s memory', () => {
    const backend = tf.backend() as tf.KernelBackend&{isUsingGpuDevice: boolean};
    const {append: before} = nativeCalls();
    const cache = new KvCache({batch: 1, capacity: 2, keyHeads: 1, headSize: 4});
    const [k, v] = [tf.zeros<tf.Rank.R4>([1, 2, 1, 4]), tf.zeros<tf.Rank.R4>([1, 2, 1, 4])];
    backend.isUsingGpuDevice = true;
    try {
      tf.tidy(() => cache.attend(rows(1), {k: rows(1), v: rows(2)}).dataSync());
      expect(() => flashAttentionWithKvCache(rows(1), k, v, {k: rows(1), v: rows(2), cacheLengths: 0}))
          .toThrowError(/^flashAttention: the backend tensorflow cannot write into the tensor of a cache/);
    } finally {
      backend.isUsingGpuDevice = false;
    }
    expect(nativeCalls().append).toBe(before);
    expect([...cache.k.dataSync()]).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
    cache.dispose();
    tf.dispose([k, v]);
  });
});

describe('a malformed call on tensorflow', () => {
  beforeAll(() => tf.setBackend('tensorflow'));

  specMalformedCalls();
});
