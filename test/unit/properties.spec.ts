import * as tf from '@tensorflow/tfjs';
import * as fc from 'fast-check';

import {flashAttentionWithLse} from '../../src/index.js';
import type {FlashAttentionOptions} from '../../src/index.js';
import {mergeAttention} from '../../src/op/variants/merge_attention.js';
import {Random} from '../support/random.js';

/** Laws of attention that hold whatever the numbers are, tried on small random problems through the public op. */

const RUNS = {seed: 20240611, numRuns: 30};
/** Float32 results of the same sums in another order. */
const TOLERANCE = 2e-5;

const between = (min: number, max: number) => fc.integer({min, max});

const SIZES = fc.record({
  batch: between(1, 3), rows: between(1, 9), keys: between(1, 12), keyHeads: between(1, 2), group: between(1, 3),
  headSize: between(1, 9), valueSize: between(1, 7), layout: fc.constantFrom('bnhd' as const, 'bhnd' as const),
  seed: between(0, 2 ** 31),
});
type Sizes = typeof SIZES extends fc.Arbitrary<infer T> ? T : never;

const ALIGNMENT = fc.record({
  causal: fc.boolean(), causalAlignment: fc.constantFrom('bottom-right' as const, 'top-left' as const),
});
const POSITIONS = fc.record({windowSize: fc.tuple(between(-1, 12), between(-1, 12))})
    .chain(window => ALIGNMENT.map((alignment): FlashAttentionOptions => ({...alignment, ...window})));

function holds<T>(drawn: fc.Arbitrary<T>, law: (values: T) => void) {
  const run = fc.check(fc.property(drawn, values => {
    tf.tidy(() => law(values));
  }), RUNS);
  expect(run.failed).withContext(`${String(run.errorInstance)}\n${fc.defaultReportMessage(run)}`).toBeFalse();
}

function same(what: string, actual: tf.Tensor, expected: tf.Tensor, tolerance = TOLERANCE) {
  if (String(actual.shape) !== String(expected.shape)) {
    throw new Error(`${what} is [${actual.shape}], expected [${expected.shape}]`);
  }
  const [a, e] = [actual.dataSync(), expected.dataSync()];
  e.forEach((x, n) => {
    const equal = Number.isFinite(x) ? Math.abs(a[n] - x) <= tolerance * Math.max(1, Math.abs(x)) : Object.is(a[n], x);
    if (!equal) {
      throw new Error(`${what}[${n}] is ${a[n]}, expected ${x}`);
    }
  });
}

function slice(x: tf.Tensor, axis: number, first: number, count: number): tf.Tensor {
  return tf.slice(x, x.shape.map((_, n) => n === axis ? first : 0), x.shape.map((n, a) => a === axis ? count : n));
}

/** The tensors of a problem. */
class Problem {
  readonly heads: number;
  /** Axis of q, k, v and the output along which queries and keys lie, and that of the heads. */
  readonly rowsAxis: number;
  readonly headsAxis: number;
  readonly q: tf.Tensor4D;
  readonly k: tf.Tensor4D;
  readonly v: tf.Tensor4D;
  readonly dO: tf.Tensor4D;
  readonly dLse: tf.Tensor;
  private readonly random: Random;

  constructor(readonly sizes: Sizes) {
    const {batch, rows, keys, keyHeads, group, headSize, valueSize, layout, seed} = sizes;
    this.random = new Random(seed);
    this.heads = keyHeads * group;
    [this.rowsAxis, this.headsAxis] = layout === 'bnhd' ? [1, 2] : [2, 1];
    const inLayout = (n: number, h: number, size: number) =>
        this.normal(layout === 'bnhd' ? [batch, n, h, size] : [batch, h, n, size]) as tf.Tensor4D;
    this.q = inLayout(rows, this.heads, headSize);
    this.k = inLayout(keys, keyHeads, headSize);
    this.v = inLayout(keys, keyHeads, valueSize);
    this.dO = inLayout(rows, this.heads, valueSize);
    this.dLse = this.normal([batch, this.heads, rows]);
  }

  normal(shape: number[]): tf.Tensor {
    return tf.tensor(this.random.normals(tf.util.sizeFromShape(shape)), shape);
  }

  /** [B,Hq,Nq,Nk]. */
  bias(): tf.Tensor {
    return this.normal([this.sizes.batch, this.heads, this.sizes.rows, this.sizes.keys]);
  }

  /** [B,1,Nq,Nk], three in ten hidden. */
  mask(): tf.Tensor {
    return tf.greater(this.normal([this.sizes.batch, 1, this.sizes.rows, this.sizes.keys]), -0.5);
  }

  attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, options: FlashAttentionOptions) {
    return flashAttentionWithLse(q as tf.Tensor4D, k, v, {layout: this.sizes.layout, ...options});
  }

  /** Output, LSE, and the gradients of Σ dO∘O + Σ dLSE∘LSE by q, k, v and `more`. */
  run(
      attend: (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, more: tf.Tensor) => {output: tf.Tensor, lse: tf.Tensor},
      more: tf.Tensor[] = []): Record<string, tf.Tensor> {
    const forward: tf.Tensor[] = [];
    const [dQ, dK, dV, dMore] = tf.grads((q, k, v, extra) => {
      const {output, lse} = attend(q, k, v, extra);
      forward.push(tf.keep(output.clone()), tf.keep(lse.clone()));
      return tf.add(tf.sum(tf.mul(output, this.dO)), tf.sum(tf.mul(lse, this.dLse)));
    })([this.q, this.k, this.v, ...more]);
    const [output, lse] = forward.map(tensor => {
      const owned = tensor.clone(); // the tidy's, as the rest
      tensor.dispose();
      return owned;
    });
    return {output, lse, dQ, dK, dV, ...dMore && {dMore}};
  }
}

function sameResults(actual: Record<string, tf.Tensor>, expected: Record<string, tf.Tensor>, tolerance?: number) {
  for (const name of Object.keys(expected)) {
    same(name, actual[name], expected[name], tolerance);
  }
}

describe('attention, on random problems,', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('of parts of the keys, merged, is that of the whole', () => {
    const cuts = fc.array(between(1, 11), {minLength: 1, maxLength: 3});
    holds(fc.tuple(SIZES, cuts, fc.constantFrom(0, 2)), ([sizes, drawnCuts, softcap]) => {
      const p = new Problem(sizes);
      const mask = p.mask();
      const edges = [...new Set([0, ...drawnCuts.filter(cut => cut < sizes.keys), sizes.keys])].sort((a, b) => a - b);
      const columns = (x: tf.Tensor, axis: number) =>
          edges.slice(1).map((edge, n) => slice(x, axis, edges[n], edge - edges[n]));
      const bias = [p.bias()];
      const whole = p.run((q, k, v, b) => p.attend(q, k, v, {softcap, mask, bias: b}), bias);
      const merged = p.run((q, k, v, b) => {
        const [ks, vs] = [columns(k, p.rowsAxis), columns(v, p.rowsAxis)];
        const [biases, masks] = [columns(b, 3), columns(mask, 3)];
        const parts = ks.map((part, n) => p.attend(q, part, vs[n], {softcap, mask: masks[n], bias: biases[n]}));
        return mergeAttention(parts, {layout: sizes.layout});
      }, bias);
      sameResults(merged, whole);
    });
  });

  it('does not change with the order of the keys', () => {
    holds(SIZES, sizes => {
      const p = new Problem(sizes);
      const random = new Random(sizes.seed + 1);
      const keys = Array.from({length: sizes.keys}, (_, key) => ({key, at: random.uniform()}));
      const order = tf.tensor1d(keys.sort((a, b) => a.at - b.at).map(({key}) => key), 'int32');
      const mask = p.mask();
      const options = {softcap: 3, sinks: p.normal([p.heads])};
      const bias = [p.bias()];
      sameResults(
          p.run((q, k, v, b) => p.attend(
              q, tf.gather(k, order, p.rowsAxis), tf.gather(v, order, p.rowsAxis),
              {...options, mask: tf.gather(mask, order, 3), bias: tf.gather(b, order, 3)}), bias),
          p.run((q, k, v, b) => p.attend(q, k, v, {...options, mask, bias: b}), bias));
    });
  });

  it('of padded sequences with their lengths is that of each without its padding', () => {
    const lengths = fc.tuple(fc.array(between(0, 9), {minLength: 3, maxLength: 3}),
        fc.array(between(0, 12), {minLength: 3, maxLength: 3}));
    holds(fc.tuple(SIZES, POSITIONS, lengths), ([sizes, positions, [drawnRows, drawnKeys]]) => {
      const p = new Problem(sizes);
      const {batch, rows, keys} = sizes;
      const rowCounts = drawnRows.slice(0, batch).map(n => Math.min(n, rows));
      const keyCounts = drawnKeys.slice(0, batch).map(n => Math.min(n, keys));
      const slopes = tf.abs(p.normal([batch, p.heads]));
      const padded = p.run((q, k, v) => p.attend(q, k, v, {
        ...positions, alibiSlopes: slopes, queryLengths: tf.tensor1d(rowCounts, 'int32'),
        keyLengths: tf.tensor1d(keyCounts, 'int32'),
      }));
      const cut = (x: tf.Tensor, b: number, axis: number, count: number) => slice(slice(x, 0, b, 1), axis, 0, count);
      const pad = (x: tf.Tensor, axis: number, size: number, value: number) =>
          tf.pad(x, x.shape.map((n, a): [number, number] => [0, a === axis ? size - n : 0]), value);
      const alone = p.run((q, k, v) => {
        const parts = rowCounts.map((count, b) => {
          const {output, lse} = p.attend(
              cut(q, b, p.rowsAxis, count), cut(k, b, p.rowsAxis, keyCounts[b]), cut(v, b, p.rowsAxis, keyCounts[b]),
              {...positions, alibiSlopes: tf.slice(slopes, b, 1)});
          return {output: pad(output, p.rowsAxis, rows, 0), lse: pad(lse, 2, rows, -Infinity)};
        });
        return {output: tf.concat(parts.map(({output}) => output)), lse: tf.concat(parts.map(({lse}) => lse))};
      });
      sameResults(padded, alone);
    });
  });

  it('is the same with a window that hides nothing', () => {
    const wide = fc.constantFrom<[number, number]>([-1, -1], [-1, 21], [21, -1], [21, 21], [1000, 2 ** 31 - 1]);
    holds(fc.tuple(SIZES, ALIGNMENT, wide), ([sizes, alignment, windowSize]) => {
      const p = new Problem(sizes);
      sameResults(
          p.run((q, k, v) => p.attend(q, k, v, {...alignment, windowSize})),
          p.run((q, k, v) => p.attend(q, k, v, alignment)), 0);
    });
  });

  it('is the same with a window as with a mask of that window', () => {
    holds(fc.tuple(SIZES, POSITIONS), ([sizes, positions]) => {
      const p = new Problem(sizes);
      const {rows, keys} = sizes;
      const offset = positions.causalAlignment === 'bottom-right' ? keys - rows : 0;
      const [left, openRight] = positions.windowSize!;
      const right = positions.causal ? 0 : openRight;
      const seen = tf.tidy(() => {
        const distance = tf.sub(tf.range(0, keys), tf.expandDims(tf.range(0, rows), 1)).sub(offset);
        return tf.logicalAnd(
            left < 0 ? tf.ones([rows, keys], 'bool') : tf.greaterEqual(distance, -left),
            right < 0 ? tf.ones([rows, keys], 'bool') : tf.lessEqual(distance, right));
      });
      sameResults(
          p.run((q, k, v) => p.attend(q, k, v, positions)), p.run((q, k, v) => p.attend(q, k, v, {mask: seen})));
    });
  });

  it('is the same with ALiBi as with a bias of its slopes', () => {
    holds(fc.tuple(SIZES, ALIGNMENT, fc.boolean()), ([sizes, alignment, byBatch]) => {
      const p = new Problem(sizes);
      const {batch, rows, keys} = sizes;
      const slopes = p.normal(byBatch ? [batch, p.heads] : [p.heads]);
      const offset = alignment.causalAlignment === 'bottom-right' ? keys - rows : 0;
      const distance = tf.abs(tf.sub(tf.add(tf.expandDims(tf.range(0, rows), 1), offset), tf.range(0, keys)));
      const bias = tf.neg(tf.mul(tf.reshape(slopes, [byBatch ? batch : 1, p.heads, 1, 1]), distance));
      sameResults(
          p.run((q, k, v) => p.attend(q, k, v, {...alignment, alibiSlopes: slopes})),
          p.run((q, k, v) => p.attend(q, k, v, {...alignment, bias})));
    });
  });

  it('with a sink is that without, merged with one more key of value 0', () => {
    holds(fc.tuple(SIZES, POSITIONS), ([sizes, positions]) => {
      const p = new Problem(sizes);
      const sinks = [p.normal([p.heads])];
      sameResults(
          p.run((q, k, v, s) => p.attend(q, k, v, {...positions, sinks: s}), sinks),
          p.run((q, k, v, s) => {
            const sink = {
              output: tf.zeros(p.dO.shape), lse: tf.broadcastTo(tf.reshape(s, [1, p.heads, 1]), p.dLse.shape),
            };
            return mergeAttention([p.attend(q, k, v, positions), sink], {layout: sizes.layout});
          }, sinks));
    });
  });

  it('hands on all of dO to V, and all of dLSE to a bias, from queries that see a key', () => {
    holds(fc.tuple(SIZES, POSITIONS), ([sizes, positions]) => {
      const p = new Problem(sizes);
      const {batch, keyHeads, group, valueSize} = sizes;
      const mask = p.mask();
      const {lse, dV, dMore: dBias} =
          p.run((q, k, v, bias) => p.attend(q, k, v, {...positions, mask, bias}), [p.bias()]);
      const sees = tf.cast(tf.greater(lse, -Infinity), 'float32'); // [B,Hq,Nq]
      const seesInLayout = tf.expandDims(p.rowsAxis === 1 ? tf.transpose(sees, [0, 2, 1]) : sees, 3);
      const byHead = tf.sum(tf.mul(p.dO, seesInLayout), p.rowsAxis);
      same('Σ dV', tf.sum(dV, p.rowsAxis), tf.sum(tf.reshape(byHead, [batch, keyHeads, group, valueSize]), 2));
      same('Σ dBias', tf.sum(dBias, 3), tf.mul(p.dLse, sees));
    });
  });
});
