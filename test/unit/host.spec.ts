import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {caseTable} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

describe('the TypeScript kernel on cpu', () => {
  specCases(caseTable(), () => 'cpu');
});

describe('the TypeScript kernel on wasm', () => {
  specCases(sample(caseTable(), 6), () => 'wasm');

  it('serves a backend that nobody named in advance', async () => {
    const cpu = tf.findBackendFactory('cpu');
    tf.registerBackend('somebody-elses', cpu);
    tf.copyRegisteredKernels('cpu', 'somebody-elses');
    for (const name of ['FlashAttention', 'FlashAttentionGrad', 'FlashAttentionCacheAppend']) {
      if (tf.getKernel(name, 'somebody-elses')) {
        tf.unregisterKernel(name, 'somebody-elses');
      }
    }
    await tf.setBackend('somebody-elses');
    expect(tf.getKernel('FlashAttention', 'somebody-elses')).toBeUndefined();
    const {flashAttention} = await import('../../src/index.js');
    const x = tf.ones<tf.Rank.R4>([1, 2, 1, 4]);
    expect(flashAttention(x, x, x).dataSync()).toEqual(new Float32Array(8).fill(1));
    x.dispose();
    await tf.setBackend('cpu');
    tf.removeBackend('somebody-elses');
  });
});
