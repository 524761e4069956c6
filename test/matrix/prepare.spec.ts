import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';
import {
  END_TO_END, EVERY_OPTION, FEW_QUERIES, gradients, LSE_GRADIENT, PAGED, PREPARED_CALLS, random, SUMMED_APART,
} from '../support/prepared_calls.js';
import type {PreparedCall} from '../support/prepared_calls.js';
import {specPrepared} from '../support/prepared_specs.js';

const device = {full: true, computeType: 'float16'} as const;
const kernels = ['to_half', 'forward'];

describe('prepare for plans over subgroup matrices', () => {
  // Heads for which dK and dV are summed apart take lavapipe three minutes.
  const large = process.env.TEST_FULL ? [SUMMED_APART] : [];
  const calls = [EVERY_OPTION, FEW_QUERIES, END_TO_END, PAGED, LSE_GRADIENT, ...large];
  specPrepared(PREPARED_CALLS.filter(({what}) => calls.includes(what)), {...device, kind: 'matrix', kernels});
});

describe('prepare on a device with subgroup matrices', () => {
  const shape = [1, 512, 4, 8];
  const large: PreparedCall = {
    what: 'so much work that it is turned into f16', shapes: {q: shape, k: shape, v: shape}, options: {causal: true},
    prepare: gradients,
    call: precision => tf.grads((q, k, v) => flashAttention(q as tf.Tensor4D, k, v, {causal: true, ...precision}))(
        [1, 2, 3].map(() => random(shape))),
  };
  // Each of the kernels for gradients comes with one for what it cannot make.
  const backward = ['to_half', 'to_half', 'backward_dq', 'backward_dq', 'backward_dkv', 'backward_dkv'];
  specPrepared([large], {...device, kernels: [...kernels, ...backward]});
});

describe('prepare for split operands', () => {
  const [q, k, bias] = [[1, 20, 1, 8], [1, 24, 1, 8], [1, 1, 20, 24]];
  const biased: PreparedCall = {
    what: 'a bias and its gradient, whose LSE is made without matrices', shapes: {q, k, v: k}, options: {bias},
    prepare: {gradients: ['q', 'bias']},
    call: precision => {
      const [keys, values] = [random(k), random(k)];
      return tf.grads((...[x, y]) => flashAttention(x as tf.Tensor4D, keys, values, {bias: y, ...precision}))(
          [random(q), random(bias)]);
    },
  };
  // The forward pass over matrices, in their stead, and for the bias.
  const compiled = ['forward', 'forward', 'forward', 'row_statistics', 'backward_dbias'];
  specPrepared([biased], {full: true, kind: 'matrix_split', kernels: compiled});
});
