// A user with ES modules.
import '@tensorflow/tfjs';
import {flashAttention} from 'tfjs-flash-attention';
import {FlashMultiHeadAttention} from 'tfjs-flash-attention/layers';
import * as tf from 'tfjs-flash-attention/tf';

import check from './attention_check.cjs';

const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
check.assertAttention('flashAttention', flashAttention(q, k, v, {causal: true}).dataSync());
check.assertAttention('tf.flashAttention', tf.flashAttention(q, k, v, {causal: true}).dataSync());
check.assertAttention('q.flashAttention', q.flashAttention(k, v, {causal: true}).dataSync());

const layer = new FlashMultiHeadAttention({numHeads: 2, keyDim: 4});
const x = tf.ones([2, 3, 6]);
if (layer.apply(x).shape.join() !== '2,3,6') {
  throw new Error('the layer gives another shape than it should');
}
