// A user's TypeScript. Compiled, not run.
import * as tfjs from '@tensorflow/tfjs';
import {
  extend, flashAttention, flashAttentionVarlen, flashAttentionWithKvCache, flashAttentionWithLse, KvCache,
} from 'tfjs-flash-attention';
import type {FlashAttentionOptions, WebGPUReport} from 'tfjs-flash-attention';
import {FlashAttentionMask, FlashMultiHeadAttention} from 'tfjs-flash-attention/layers';
import type {FlashMultiHeadAttentionArgs} from 'tfjs-flash-attention/layers';
import {enableWebGPU} from 'tfjs-flash-attention/node';
import * as tf from 'tfjs-flash-attention/tf';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;

/** Gives a function that accepts values of exactly this type. `any` is not among them. */
function exactly<Expected>() {
  return function<Actual>(value: Same<Expected, Actual> extends true ? Actual : never): void {
    void value;
  };
}

const options: FlashAttentionOptions = {
  causal: true, layout: 'bhnd', dropoutP: 0.1, seed: 1, windowSize: [8, 0], sinks: [0, 1], keyLengths: [5],
};
const q = tfjs.zeros<tfjs.Rank.R4>([1, 8, 2, 4]);

exactly<tfjs.Tensor4D>()(flashAttention(q, q, q, options));
exactly<tfjs.Tensor4D>()(tf.flashAttention(q, q, q));
exactly<tfjs.Tensor<tfjs.Rank.R4>>()(q.flashAttention(q, q, {causal: true}));
exactly<tfjs.Tensor3D>()(flashAttentionWithLse(q, q, q).lse);
exactly<typeof flashAttention>()(extend({Tensor: tfjs.Tensor}).flashAttention);
exactly<number>()(new FlashAttentionMask({}).id);
const rows = tfjs.zeros<tfjs.Rank.R3>([3, 1, 4]);
exactly<tfjs.Tensor3D>()(flashAttentionVarlen(rows, rows, rows, [0, 3], [0, 3], {causal: true}));
exactly<tfjs.Tensor4D>()(flashAttentionWithKvCache(q, q, q, {cacheLengths: 3}));
exactly<tfjs.Tensor4D>()(tf.flashAttentionQkvPacked(tfjs.zeros([1, 2, 3, 1, 4])));
exactly<readonly number[]>()(new KvCache({batch: 1, capacity: 4, keyHeads: 1, headSize: 4}).lengths);

// @ts-expect-error: no such option
flashAttention(q, q, q, {casual: true});
// @ts-expect-error: no such layout
q.flashAttention(q, q, {layout: 'nbhd'});

const args: FlashMultiHeadAttentionArgs = {numHeads: 2, keyDim: 4};
export const layer: tfjs.layers.Layer = new FlashMultiHeadAttention(args);
// @ts-expect-error: keyDim is missing
new FlashMultiHeadAttention({numHeads: 2});

export async function hasHardware(): Promise<boolean> {
  exactly<Promise<WebGPUReport>>()(tf.enableWebGPU({powerPreference: 'low-power', requiredFeatures: ['subgroups']}));
  // @ts-expect-error: only in Node
  await tf.enableWebGPU({dawnFlags: []});
  const {adapter, hardware} = await enableWebGPU({dawnFlags: [], replace: true, submitBatchSize: 30});
  exactly<string>()(adapter);
  return hardware;
}
