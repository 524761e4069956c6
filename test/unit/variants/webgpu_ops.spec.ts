import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-webgpu';

import {mergeAttention} from '../../../src/op/variants/merge_attention.js';
import {padInput, unpadInput} from '../../../src/op/variants/padding.js';
import {applyRotaryAtOffsets, applyRotaryEmbedding} from '../../../src/op/variants/rotary.js';
import {useBackend} from './numbers.js';

/** The helpers are made of tfjs' own ops, so they run wherever those do. */
describe('the kernels behind', () => {
  useBackend('cpu');

  const rotary = (apply: typeof applyRotaryEmbedding) => () => {
    const table = tf.ones([9, 3]);
    const firsts = tf.tensor1d([1, 2], 'int32');
    for (const options of [{}, {interleaved: true, offsets: [1, 2]}, {layout: 'bhnd', offsets: firsts}] as const) {
      tf.grad((t: tf.Tensor) => apply(t, table, table, options))(tf.ones([2, 3, 2, 8]));
    }
  };
  const calls: Record<string, () => void> = {
    mergeAttention: () => {
      for (const layout of ['bnhd', 'bhnd'] as const) {
        tf.grads((a, b, c, d) => {
          const {output, lse} = mergeAttention([{output: a, lse: b}, {output: c, lse: d}], {layout});
          return tf.add(tf.sum(output), tf.sum(lse));
        })([tf.ones([1, 2, 2, 3]), tf.ones([1, 2, 2]), tf.ones([1, 2, 2, 3]), tf.zeros([1, 2, 2])]);
      }
    },
    'unpadInput and padInput': () => {
      tf.grad((t: tf.Tensor) => {
        const {x, indices} = unpadInput(t, [[true, false]]);
        return padInput(x, indices, 1, 2);
      })(tf.ones([1, 2, 3]));
    },
    applyRotaryEmbedding: rotary(applyRotaryEmbedding),
    applyRotaryAtOffsets: rotary(applyRotaryAtOffsets),
  };
  for (const [name, call] of Object.entries(calls)) {
    it(`${name} are there on webgpu and wasm, forward and backward`, async () => {
      const {kernelNames} = await tf.profile(() => tf.tidy(call) as unknown as tf.TensorContainer);
      const names = kernelNames.filter(kernel => tf.getKernel(kernel, 'cpu')); // others are scopes of customGrad
      expect(names.length).toBeGreaterThan(2);
      for (const backend of ['webgpu', 'wasm']) {
        expect(names.filter(kernel => !tf.getKernel(kernel, backend))).withContext(backend).toEqual([]);
      }
    });
  }
});
