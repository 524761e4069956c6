// A user of WebGPU in Node, with ES modules.
import * as tf from '@tensorflow/tfjs';
import {enableWebGPU, flashAttention} from 'tfjs-flash-attention/node';

import check from './attention_check.cjs';

await enableWebGPU();
const [q, k, v] = [check.q, check.k, check.v].map(values => tf.tensor(values, check.shape));
check.assertAttention('flashAttention', await flashAttention(q, k, v, {causal: true}).data());
