import * as tf from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import {expectMaskedGradients, specMaskedGradients} from '../support/masks.js';
import {SLOW_MS} from '../support/specs.js';
import {withLimits} from '../support/webgpu_device.js';

describe('output and gradients with a mask', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  afterEach(() => forcePlan(undefined));

  specMaskedGradients('simt', 2e-6);

  it('are the same where a device limit cuts the keys within a word of the mask', async () => {
    // k and v, 203 keys of 64 bytes, are cut at key 104; the mask of 8 rows is not.
    await withLimits({maxStorageBufferBindingSize: 7600}, () => expectMaskedGradients('simt', 8, 203, 2e-6));
  }, SLOW_MS);
});
