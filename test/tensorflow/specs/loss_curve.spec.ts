import * as tf from '@tensorflow/tfjs';

import {expectSameLossCurves} from '../../support/loss_curves.js';

describe('training on TensorFlow', () => {
  it('follows standard attention\'s loss step for step', async () => {
    await tf.setBackend('tensorflow');
    await expectSameLossCurves();
  }, 120_000);
});
