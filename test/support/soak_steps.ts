import * as tf from '@tensorflow/tfjs';

import {
  flashAttention, flashAttentionQkvPacked, flashAttentionVarlen, flashAttentionWithLse, KvCache,
} from '../../src/index.js';

import {Random} from './random.js';

const [HEADS, SIZE] = [4, 16];
const WIDTH = HEADS * SIZE;

/** Weights that all steps train: projections of q, k, v and the output, a bias by distance, a sink for each head. */
interface Weights {
  readonly [name: string]: tf.Variable;
}

/** Attention of one kind in the middle of a model: rows [B,N,WIDTH] → [B,N,WIDTH]. */
type Attention = (x: tf.Tensor3D, weights: Weights, seed: number) => tf.Tensor;

/** A step of the soak: a kind of attention on inputs of a shape. */
interface Step {
  readonly what: string;
  readonly batch: number;
  readonly length: number;
  readonly attention: Attention;
}

const project = (x: tf.Tensor3D, weight: tf.Variable, heads = HEADS): tf.Tensor4D => {
  const [batch, length] = x.shape;
  const flat = tf.matMul(tf.reshape(x, [batch * length, WIDTH]), weight);
  return tf.reshape(flat, [batch, length, heads, SIZE]);
};

const projections = (x: tf.Tensor3D, {q, k, v}: Weights) => [project(x, q), project(x, k), project(x, v)] as const;

const STEPS: readonly Step[] = [
  {
    what: 'causal', batch: 4, length: 96,
    attention: (x, weights) => flashAttention(...projections(x, weights), {causal: true}),
  },
  {
    what: 'window and softcap', batch: 2, length: 130,
    attention: (x, weights) => flashAttention(...projections(x, weights), {windowSize: [40, 3], softcap: 20}),
  },
  {
    what: 'dropout and sinks', batch: 2, length: 64,
    attention: (x, weights, seed) =>
        flashAttention(...projections(x, weights), {causal: true, dropoutP: 0.1, seed, sinks: weights.sinks}),
  },
  {
    what: 'a trained bias and a mask', batch: 2, length: 72,
    attention: (x, weights) => flashAttention(...projections(x, weights), {
      bias: tf.slice(weights.bias, [0, 0, 0, 0], [1, HEADS, 72, 72]),
      mask: tf.greater(tf.range(0, 72), 3),
    }),
  },
  {
    what: 'lengths and slopes', batch: 3, length: 100,
    attention: (x, weights) => flashAttention(...projections(x, weights), {
      queryLengths: [100, 60, 1], keyLengths: [100, 60, 1], alibiSlopes: [0.5, 0.25, 0.125, 0.0625], causal: true,
    }),
  },
  {
    what: 'grouped heads, heads first', batch: 2, length: 65,
    attention: (x, weights) => {
      const first = (t: tf.Tensor4D) => tf.transpose(t, [0, 2, 1, 3]);
      const few = (t: tf.Tensor4D) => tf.slice(t, [0, 0, 0, 0], [-1, 1, -1, -1]);
      const [q, k, v] = projections(x, weights).map(first);
      return first(flashAttention(q, few(k), few(v), {layout: 'bhnd'}));
    },
  },
  {
    what: 'packed, with its LSE', batch: 2, length: 48,
    attention: (x, weights) => {
      const qkv = tf.stack([...projections(x, weights)], 2);
      const {lse} = flashAttentionWithLse(...projections(x, weights));
      const output = flashAttentionQkvPacked(qkv, {causal: true});
      return tf.mul(output, tf.reshape(tf.sigmoid(tf.transpose(lse, [0, 2, 1])), [2, 48, HEADS, 1]));
    },
  },
  {
    what: 'few queries over many keys', batch: 1, length: 1024,
    attention: (x, weights) => {
      const [q, k, v] = projections(x, weights);
      const last = tf.slice(q, [0, 1020, 0, 0], [1, 4, HEADS, SIZE]);
      return tf.tile(flashAttention(last, k, v, {causal: true}), [1, 256, 1, 1]);
    },
  },
  {
    what: 'sequences end to end, of new lengths', batch: 1, length: 120,
    attention: (x, weights, seed) => {
      const [q, k, v] = projections(x, weights).map(t => tf.reshape(t, [120, HEADS, SIZE]) as tf.Tensor3D);
      const offsets = [0, seed % 41, 41 + seed % 67, 120];
      return flashAttentionVarlen(q, k, v, offsets, offsets, {causal: true});
    },
  },
];

/** A small model with attention whose training steps come in changing shapes and options. */
export class Soak {
  private readonly weights: Weights;
  private readonly optimizer = tf.train.adam(1e-3);
  private readonly random = new Random(11);
  private readonly cache = new KvCache({batch: 2, capacity: 64, keyHeads: HEADS, headSize: SIZE});
  private count = 0;

  /** Steps until every kind has come once. */
  static readonly cycle = STEPS.length;
  static readonly kinds = STEPS.map(({what}) => what);

  constructor() {
    const weight = (shape: number[], deviation: number, seed: number) =>
        tf.tidy(() => tf.variable(tf.randomNormal(shape, 0, deviation, 'float32', seed)));
    this.weights = {
      ...Object.fromEntries(['q', 'k', 'v', 'output'].map((name, n) => [name, weight([WIDTH, WIDTH], 0.1, n)])),
      bias: weight([1, HEADS, 80, 80], 0.1, 5),
      sinks: weight([HEADS], 0.1, 6),
    };
  }

  /** Trains one step on the next kind of attention, and appends a token to a cache; gives the loss. */
  async step(): Promise<number> {
    const {what, batch, length, attention} = STEPS[this.count++ % STEPS.length];
    const seed = this.random.integer(2 ** 31);
    const loss = tf.tidy(() => {
      const x = tf.randomNormal<tf.Rank.R3>([batch, length, WIDTH], 0, 1, 'float32', seed);
      return this.optimizer.minimize(() => {
        const attended = tf.reshape(attention(x, this.weights, seed), [batch * length, WIDTH]);
        const y = tf.matMul(attended, this.weights.output);
        const target = tf.reshape(tf.mean(x, 1, true), [batch, 1, WIDTH]);
        const loss = tf.mean(tf.square(tf.sub(tf.reshape(y, [batch, length, WIDTH]), target)));
        // Adam goes by the place among the weights that have a gradient: all of them are to have one in every step.
        const sizes = Object.values(this.weights).map(weight => tf.mean(tf.square(weight)));
        return tf.add(loss, tf.mul(tf.addN(sizes), 1e-6)) as tf.Scalar;
      }, true)!;
    });
    const [value] = await loss.data();
    loss.dispose();
    if (!Number.isFinite(value)) {
      throw new Error(`step ${this.count} (${what}): the loss is ${value}`);
    }
    await this.generate(seed);
    return value;
  }

  private async generate(seed: number) {
    if (this.cache.lengths[0] === this.cache.capacity) {
      this.cache.truncate(1);
    }
    const token = tf.tidy(() => {
      const [q, k, v] = [1, 2, 3].map(
          n => tf.randomNormal<tf.Rank.R4>([2, 1, HEADS, SIZE], 0, 1, 'float32', seed + n));
      return this.cache.attend(q, {k, v, causal: true});
    });
    await token.data();
    token.dispose();
  }

  dispose() {
    tf.dispose(Object.values(this.weights));
    this.optimizer.dispose();
    this.cache.dispose();
  }
}
