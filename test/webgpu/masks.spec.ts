import * as tf from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import {specMaskedGradients} from '../support/masks.js';

describe('output and gradients with a mask', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  afterEach(() => forcePlan(undefined));

  specMaskedGradients('simt', 2e-6);
});
