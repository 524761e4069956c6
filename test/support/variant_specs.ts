import * as tf from '@tensorflow/tfjs';

import {
  applyRotaryEmbedding, flashAttention, flashAttentionKvPacked, flashAttentionKvPackedWithLse, flashAttentionQkvPacked,
  flashAttentionQkvPackedWithLse, flashAttentionVarlen, flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked,
  flashAttentionVarlenWithLse, flashAttentionWithKvCache, flashAttentionWithLse, KvCache,
} from '../../src/index.js';
import type {FlashAttentionOptions} from '../../src/index.js';

import {Random} from './random.js';
import {SLOW_MS} from './specs.js';

/** Float32 results of the same sums in another order. */
const TOLERANCE = 2e-5;

function normal(seed: number, shape: number[]): tf.Tensor {
  return tf.tensor(new Random(seed).normals(tf.util.sizeFromShape(shape)), shape);
}

async function expectClose(actual: tf.Tensor, expected: tf.Tensor, what: string) {
  expect(actual.shape).withContext(what).toEqual(expected.shape);
  const [a, e] = [await actual.data(), await expected.data()];
  let worst = 0;
  for (let i = 0; i < e.length; i++) {
    const difference = Object.is(a[i], e[i]) ? 0 : Math.abs(a[i] - e[i]) / Math.max(1, Math.abs(e[i]));
    worst = difference <= worst ? worst : difference; // NaN stays
  }
  expect(worst).withContext(what).toBeLessThan(TOLERANCE);
}

/** Compares what two functions give, tensor by tensor, and that neither leaves anything behind but `kept` tensors. */
async function expectSame(actual: () => tf.Tensor[], expected: () => tf.Tensor[], kept = 0) {
  const before = tf.memory().numTensors;
  const [a, e] = [tf.tidy(actual), tf.tidy(expected)];
  expect(a.length).toBe(e.length);
  for (let n = 0; n < e.length; n++) {
    await expectClose(a[n], e[n], `result ${n}`);
  }
  tf.dispose([a, e]);
  expect(tf.memory().numTensors).withContext('tensors left behind').toBe(before + kept);
}

const parts = (packed: tf.Tensor, axis: number) => tf.unstack(packed, axis);

type Slices = Array<{q: [number, number], k: [number, number]}>;

/** Varlen attention as one call for each sequence. */
function bySequence(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, slices: Slices, options: FlashAttentionOptions,
    slopes?: number[][]): {output: tf.Tensor, lse: tf.Tensor} {
  const results = slices.flatMap(({q: [q0, q1], k: [k0, k1]}, b) => {
    if (q1 === q0) {
      return [];
    }
    const rows = (x: tf.Tensor, from: number, to: number) =>
        tf.expandDims(tf.slice(x, [from, 0, 0], [to - from, x.shape[1]!, x.shape[2]!]), 0);
    const {output, lse} = flashAttentionWithLse(rows(q, q0, q1), rows(k, k0, k1), rows(v, k0, k1),
        {...options, ...slopes && {alibiSlopes: [slopes[b]]}});
    return [{output: tf.squeeze(output, [0]), lse: tf.squeeze(lse, [0])}];
  });
  return {output: tf.concat(results.map(({output}) => output)), lse: tf.concat(results.map(({lse}) => lse), 1)};
}

const slicesOf = (cuQ: number[], cuK: number[]): Slices => cuQ.slice(1).map(
    (end, b) => ({q: [cuQ[b], end], k: [cuK[b], cuK[b + 1]]}));

function specPacked() {
  const options: FlashAttentionOptions[] = [{}, {causal: true, softcap: 5}, {windowSize: [7, 3], keyLengths: [20, 33]}];
  for (const option of options) {
    for (const headSize of [16, 7]) {
      it(`qkv packed is q, k and v apart, D ${headSize}, ${JSON.stringify(option)}`, async () => {
        const qkv = normal(1, [2, 33, 3, 4, headSize]);
        const dO = normal(2, [2, 33, 4, headSize]);
        const dLse = normal(3, [2, 4, 33]);
        const loss = (output: tf.Tensor, lse: tf.Tensor) =>
            tf.add(tf.sum(tf.mul(output, dO)), tf.sum(tf.mul(lse, dLse))) as tf.Scalar;
        await expectSame(() => {
          const {output, lse} = flashAttentionQkvPackedWithLse(qkv, option);
          const gradient = tf.grad(x => {
            const packed = flashAttentionQkvPackedWithLse(x, option);
            return loss(packed.output, packed.lse);
          })(qkv);
          return [output, lse, gradient, flashAttentionQkvPacked(qkv, option)];
        }, () => {
          const apart = (x: tf.Tensor) => flashAttentionWithLse(
              ...parts(x, 2) as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D], option);
          const {output, lse} = apart(qkv);
          const [q, k, v] = parts(qkv, 2);
          const gradients = tf.grads((a, b, c) => {
            const result = flashAttentionWithLse(a, b, c, option);
            return loss(result.output, result.lse);
          })([q, k, v]);
          return [output, lse, tf.stack(gradients, 2), output.clone()];
        });
        tf.dispose([qkv, dO, dLse]);
      }, SLOW_MS);

      it(`kv packed is k and v apart, D ${headSize}, ${JSON.stringify(option)}`, async () => {
        const q = normal(1, [2, 21, 6, headSize]);
        const kv = normal(2, [2, 33, 2, 2, headSize]);
        const dO = normal(3, [2, 21, 6, headSize]);
        await expectSame(() => {
          const {output, lse} = flashAttentionKvPackedWithLse(q, kv, option);
          return [output, lse, ...tf.grads((a, b) => flashAttentionKvPacked(a, b, option))([q, kv], dO)];
        }, () => {
          const [k, v] = parts(kv, 2);
          const {output, lse} = flashAttentionWithLse(q, k, v, option);
          const [dQ, dK, dV] = tf.grads((a, b, c) => flashAttention(a, b, c, option))([q, k, v], dO);
          return [output, lse, dQ, tf.stack([dK, dV], 2)];
        });
        tf.dispose([q, kv, dO]);
      }, SLOW_MS);
    }
  }
}

function specVarlen() {
  const cuQ = [0, 5, 5, 70, 71, 140];
  const cuK = [0, 40, 41, 41, 110, 150];
  const options: FlashAttentionOptions[] =
      [{}, {causal: true}, {causal: true, causalAlignment: 'top-left', softcap: 3}, {windowSize: [9, 2]}];
  for (const option of options) {
    it(`varlen is each sequence by itself, ${JSON.stringify(option)}`, async () => {
      const [q, k, v] = [normal(1, [140, 4, 12]), normal(2, [150, 2, 12]), normal(3, [150, 2, 20])];
      const dO = normal(4, [140, 4, 20]);
      const dLse = normal(5, [4, 140]);
      const slopes = cuQ.slice(1).map((_, b) => [0.1 * b, 0.3, 0.02, 0.5]);
      const sinks = tf.tensor1d([0.3, -1, 2, 0.1]);
      const given = {...option, sinks};
      // Rows that see no key have the LSE of their sink, so all of it is finite.
      const loss = ({output, lse}: {output: tf.Tensor, lse: tf.Tensor}) =>
          tf.add(tf.sum(tf.mul(output, dO)), tf.sum(tf.mul(lse, dLse))) as tf.Scalar;
      const all = (f: (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, sinks: tf.Tensor) => {
        output: tf.Tensor, lse: tf.Tensor,
      }) => {
        const {output, lse} = f(q, k, v, sinks);
        return [output, lse, ...tf.grads((a, b, c, s) => loss(f(a, b, c, s)))([q, k, v, sinks])];
      };
      await expectSame(
          () => all((a, b, c, s) => flashAttentionVarlenWithLse(
              a, b, c, cuQ, tf.tensor1d(cuK, 'int32'), {...given, sinks: s, alibiSlopes: slopes})),
          () => all((a, b, c, s) => bySequence(a, b, c, slicesOf(cuQ, cuK), {...given, sinks: s}, slopes)));
      tf.dispose([q, k, v, dO, dLse, sinks]);
    }, SLOW_MS);
  }

  it('packed varlen is varlen of its parts', async () => {
    const [qkv, q, kv] = [normal(1, [70, 3, 2, 8]), normal(2, [40, 4, 8]), normal(3, [70, 2, 2, 8])];
    const [cuSeqlens, cuShort] = [[0, 1, 50, 50, 70], [0, 30, 30, 31, 40]];
    const [dO, dShort] = [normal(4, [70, 2, 8]), normal(5, [40, 4, 8])];
    await expectSame(() => [
      flashAttentionVarlenQkvPacked(qkv, cuSeqlens, {causal: true}),
      tf.grad(x => flashAttentionVarlenQkvPacked(x, cuSeqlens, {causal: true}))(qkv, dO),
      ...tf.grads((a, b) => flashAttentionVarlenKvPacked(a, b, cuShort, cuSeqlens))([q, kv], dShort),
    ], () => {
      const [a, b, c] = parts(qkv, 1);
      const [k, v] = parts(kv, 1);
      const f = (x: tf.Tensor, y: tf.Tensor, z: tf.Tensor) =>
          flashAttentionVarlen(x, y, z, cuSeqlens, cuSeqlens, {causal: true});
      const [dQ, dK, dV] = tf.grads((x, y, z) => flashAttentionVarlen(x, y, z, cuShort, cuSeqlens))([q, k, v], dShort);
      return [
        f(a, b, c), tf.stack(tf.grads(f)([a, b, c], dO), 1), dQ, tf.stack([dK, dV], 1),
      ];
    });
    tf.dispose([qkv, q, kv, dO, dShort]);
  }, SLOW_MS);
}

/** Attention over the first lengths[b] rows of a padded cache, sequence by sequence. */
function overRows(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, from: number[], to: number[], options: FlashAttentionOptions): tf.Tensor {
  const rows = (x: tf.Tensor, b: number, begin: number, end: number) =>
      tf.slice(x, [b, begin, 0, 0], [1, end - begin, x.shape[2]!, x.shape[3]!]);
  return tf.concat(from.map((begin, b) => flashAttention(
      rows(q, b, 0, q.shape[1]!), rows(k, b, begin, to[b]), rows(v, b, begin, to[b]), options)));
}

function specKvCache() {
  it('attention over a cache is attention over its rows', async () => {
    const [q, k, v] = [normal(1, [3, 2, 4, 16]), normal(2, [3, 300, 2, 16]), normal(3, [3, 300, 2, 24])];
    const to = [300, 1, 170];
    for (const numSplits of [0, 1, 2, 7]) {
      for (const options of [{}, {causal: true, softcap: 4}, {windowSize: [60, 0] as [number, number]}]) {
        await expectSame(
            () => [flashAttentionWithKvCache(q, k, v, {...options, cacheLengths: to, numSplits})],
            () => [overRows(q, k, v, [0, 0, 0], to, options)]);
      }
    }
    await expectSame(
        () => [flashAttentionWithKvCache(
            q, k, v, {cacheLengths: tf.tensor1d(to, 'int32'), cacheLeftPad: [7, 0, 100], causal: true})],
        () => [overRows(q, k, v, [7, 0, 100], to, {causal: true})]);
    tf.dispose([q, k, v]);
  }, SLOW_MS);

  it('picks batches and pages of a cache', async () => {
    const q = normal(1, [2, 1, 4, 8]);
    const [k, v] = [normal(2, [5, 16, 2, 8]), normal(3, [5, 16, 2, 8])];
    const order = (x: tf.Tensor, batches: number[]) => tf.gather(x, batches);
    await expectSame(
        () => [flashAttentionWithKvCache(q, k, v, {cacheBatchIndex: [4, 1], cacheLengths: [16, 9]})],
        () => [overRows(q, order(k, [4, 1]), order(v, [4, 1]), [0, 0], [16, 9], {})]);
    const blockTable = [[3, 0], [4, 2]];
    const unpaged = (x: tf.Tensor) => tf.reshape(order(x, blockTable.flat()), [2, 32, 2, 8]);
    await expectSame(
        () => [flashAttentionWithKvCache(q, k, v, {blockTable, cacheLengths: [31, 17], numSplits: 2})],
        () => [overRows(q, unpaged(k), unpaged(v), [0, 0], [31, 17], {})]);
    tf.dispose([q, k, v]);
  }, SLOW_MS);

  for (const paged of [false, true]) {
    it(`appends, rotates and attends token by token as if at once${paged ? ', in pages' : ''}`, async () => {
      const [batch, length, heads, size] = [2, 12, 2, 8];
      const [q, k, v] = [1, 2, 3].map(seed => normal(seed, [batch, length, heads, size]));
      const angles = normal(4, [20, 3]);
      const [rotaryCos, rotarySin] = [tf.cos(angles), tf.sin(angles)];
      const cache = new KvCache({
        batch, capacity: 14, keyHeads: heads, headSize: size, ...paged && {pageSize: 4},
      });
      const before = tf.memory().numTensors;
      const rows = (x: tf.Tensor, from: number, to: number) =>
          tf.slice(x, [0, from, 0, 0], [batch, to - from, heads, size]);
      for (const interleaved of [false, true]) {
        cache.truncate(0);
        const turned = (x: tf.Tensor) => applyRotaryEmbedding(x, rotaryCos, rotarySin, {interleaved});
        await expectSame(
            () => [[0, 5], [5, 6], [6, 7], [7, 12]].map(([from, to]) => cache.attend(rows(q, from, to), {
              k: rows(k, from, to), v: rows(v, from, to), causal: true, rotaryCos, rotarySin,
              rotaryInterleaved: interleaved,
            })),
            () => {
              const whole = flashAttention(turned(q), turned(k), v, {causal: true});
              return [[0, 5], [5, 6], [6, 7], [7, 12]].map(([from, to]) => rows(whole, from, to));
            },
            paged ? 1 : 0); // the table of pages
        expect(cache.lengths).toEqual([12, 12]);
      }
      expect(cache.pagesLeft).toBe(paged ? 2 : 0);
      // What a caller has read of the cache does not go stale.
      await cache.k.data();
      await expectSame(() => [cache.attend(rows(q, 0, 1), {k: rows(k, 3, 4), v: rows(v, 3, 4)})], () => {
        const turnedKeys = tf.concat([applyRotaryEmbedding(k, rotaryCos, rotarySin, {interleaved: true}),
          rows(k, 3, 4)], 1);
        return [flashAttention(rows(q, 0, 1), turnedKeys, tf.concat([v, rows(v, 3, 4)], 1))];
      });
      if (!paged) {
        const last = tf.slice(cache.k, [0, 12, 0, 0], [batch, 1, heads, size]);
        await expectClose(last, tf.tidy(() => rows(k, 3, 4)), 'the appended row');
        last.dispose();
      }
      expect(() => cache.attend(q, {k, v})).toThrowError(/at most 14 rows in each sequence \(capacity\) for k/);
      expect(cache.lengths).toEqual([13, 13]);
      cache.truncate([3, 20]);
      expect(cache.lengths).toEqual([3, 13]);
      expect(tf.memory().numTensors).toBeLessThanOrEqual(before + 2); // the page table, the row read above
      cache.dispose();
      expect(() => cache.k).toThrowError(/a cache that is not disposed/);
      tf.dispose([q, k, v, angles, rotaryCos, rotarySin]);
    }, SLOW_MS);
  }

  it('writes where the cache lies, token after token, and makes nothing that stays', async () => {
    const cache = new KvCache({batch: 1, capacity: 64, keyHeads: 2, headSize: 8});
    const [q, k, v] = [normal(1, [1, 1, 4, 8]), normal(2, [1, 1, 2, 8]), normal(3, [1, 1, 2, 8])];
    const token = async () => {
      const output = cache.attend(q, {k, v, causal: true});
      await output.data();
      output.dispose();
    };
    await token();
    await token();
    const manager = (tf.backend() as {bufferManager?: {numBytesAllocated: number}}).bufferManager;
    const state = () => ({
      keys: cache.k.dataId, values: cache.v.dataId, tensors: tf.memory().numTensors, bytes: tf.memory().numBytes,
      allocated: manager?.numBytesAllocated,
    });
    const before = state();
    for (let n = 0; n < 20; n++) {
      await token();
    }
    expect(state()).toEqual(before);
    expect(cache.lengths).toEqual([22]);
    cache.dispose();
    tf.dispose([q, k, v]);
  }, SLOW_MS);

  it('is split over the keys without a difference, sinks and slopes included', async () => {
    const [q, k, v] = [normal(1, [1, 3, 4, 16]), normal(2, [1, 1500, 2, 16]), normal(3, [1, 1500, 2, 16])];
    const options = {sinks: [1, -2, 0, 5], alibiSlopes: [0.01, 0, 0.1, 1], causal: true};
    await expectSame(
        () => [flashAttentionWithKvCache(q, k, v, {...options, numSplits: 5})],
        () => [flashAttentionWithKvCache(q, k, v, {...options, numSplits: 1})]);
    tf.dispose([q, k, v]);
  }, SLOW_MS);
}

/** The variants of the op on one backend, each held to the op itself, which the case table judges. */
export function specVariants(backendName: string): void {
  describe(`on ${backendName}`, () => {
    beforeAll(() => tf.setBackend(backendName));
    specPacked();
    specVarlen();
    specKvCache();
  });
}
