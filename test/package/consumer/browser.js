// A user with a bundler. Leaves what happened in globalThis.result.
import * as tf from '@tensorflow/tfjs';
import {enableWebGPU, flashAttention} from 'tfjs-flash-attention';
import {FlashMultiHeadAttention} from 'tfjs-flash-attention/layers';

import check from './attention_check.cjs';

async function main() {
  await tf.setBackend('cpu');
  const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
  check.assertAttention('flashAttention', flashAttention(q, k, v, {causal: true}).dataSync());
  check.assertAttention('q.flashAttention', q.flashAttention(k, v, {causal: true}).dataSync());
  const reason = await enableWebGPU().catch(error => error.message); // in a page without navigator.gpu
  if (!/WebGPU is missing: this browser has no navigator.gpu/.test(reason)) {
    throw new Error(`enableWebGPU says: ${reason}`);
  }
  return FlashMultiHeadAttention.className;
}

globalThis.result = main();
