import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {
  flashAttention, flashAttentionKvPacked, flashAttentionKvPackedWithLse, flashAttentionQkvPacked,
  flashAttentionQkvPackedWithLse, flashAttentionVarlen, flashAttentionVarlenWithLse, flashAttentionWithLse,
} from '../../src/index.js';
import type {FlashAttentionOptions} from '../../src/index.js';

const random = <R extends tf.Rank>(...shape: tf.ShapeMap[R]) => tf.randomNormal<R>(shape, 0, 1, 'float32', 7);
const rows = (length: number) => random<tf.Rank.R4>(1, length, 2, 16);

/** The output alone, and the one that comes with an LSE. */
type Both = [alone: tf.Tensor, withLse: tf.Tensor];

function padded(queries: number, keys: number, options: FlashAttentionOptions = {}): Both {
  const [q, k] = [rows(queries), rows(keys)];
  return [flashAttention(q, k, k, options), flashAttentionWithLse(q, k, k, options).output];
}

const CALLS: Array<[what: string, call: () => Both]> = [
  ['causal', () => padded(70, 70, {causal: true})],
  ['with a mask', () => padded(9, 33, {mask: tf.greater(random<tf.Rank.R4>(1, 1, 9, 33), 0)})],
  ['with sinks and lengths', () => padded(9, 33, {sinks: [1, -1], keyLengths: [20]})],
  ['of one query, its keys split', () => padded(1, 3000)],
  ['of no queries', () => padded(0, 5)],
  ['over no keys', () => padded(5, 0)],
  ['packed', () => {
    const qkv = random<tf.Rank.R5>(1, 20, 3, 2, 8);
    return [flashAttentionQkvPacked(qkv), flashAttentionQkvPackedWithLse(qkv).output];
  }],
  ['half packed', () => {
    const [q, kv] = [random<tf.Rank.R4>(1, 5, 4, 8), random<tf.Rank.R5>(1, 20, 2, 2, 8)];
    return [flashAttentionKvPacked(q, kv), flashAttentionKvPackedWithLse(q, kv).output];
  }],
  ['end to end', () => {
    const x = random<tf.Rank.R3>(20, 2, 8);
    const ends = [0, 12, 20];
    return [
      flashAttentionVarlen(x, x, x, ends, ends), flashAttentionVarlenWithLse(x, x, x, ends, ends).output,
    ];
  }],
];

/** How many outputs each forward kernel has that `f` runs. */
async function outputCounts(f: () => tf.Tensor): Promise<number[]> {
  const {kernels} = await tf.profile(() => tf.tidy(f).dispose());
  return kernels.filter(({name}) => name === 'FlashAttention').map(({outputShapes}) => outputShapes.length);
}

/** An LSE that nobody asks for is no tensor: the forward kernel has it in memory of its own. */
describe('an output whose LSE nobody asks for, on WebGPU', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  for (const [what, call] of CALLS) {
    it(`has the bits of one with an LSE: ${what}`, async () => {
      const before = tf.memory().numTensors;
      const [alone, withLse] = tf.tidy(call);
      expect(alone.shape).toEqual(withLse.shape);
      expect(await alone.data()).toEqual(await withLse.data());
      tf.dispose([alone, withLse]);
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('comes alone, but where an LSE or a gradient wants all three', async () => {
    const x = rows(8);
    expect(await outputCounts(() => flashAttention(x, x, x))).toEqual([1]);
    expect(await outputCounts(() => flashAttentionWithLse(x, x, x).lse)).toEqual([3]);
    expect(await outputCounts(() => tf.grad(q => flashAttention(q as Tensor4D, x, x))(x))).toEqual([3]);
    x.dispose();
  });
});
