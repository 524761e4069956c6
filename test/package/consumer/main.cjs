// A user with CommonJS.
const tf = require('tfjs-flash-attention').extend(require('@tensorflow/tfjs'));
const {flashAttention} = require('tfjs-flash-attention');
const {FlashMultiHeadAttention} = require('tfjs-flash-attention/layers');
const tfEntry = require('tfjs-flash-attention/tf');

const check = require('./attention_check.cjs');

const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
check.assertAttention('flashAttention', flashAttention(q, k, v, {causal: true}).dataSync());
check.assertAttention('tf.flashAttention', tf.flashAttention(q, k, v, {causal: true}).dataSync());
check.assertAttention('/tf', tfEntry.flashAttention(q, k, v, {causal: true}).dataSync());
check.assertAttention('q.flashAttention', q.flashAttention(k, v, {causal: true}).dataSync());

const model = tf.sequential({layers: [new FlashMultiHeadAttention({numHeads: 2, keyDim: 4, inputShape: [3, 6]})]});
if (model.predict(tf.ones([2, 3, 6])).shape.join() !== '2,3,6') {
  throw new Error('the layer gives another shape than it should');
}
