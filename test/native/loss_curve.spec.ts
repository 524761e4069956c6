import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {expectSameLossCurves} from '../support/loss_curves.js';

describe('training with the addon', () => {
  for (const backend of ['cpu', 'wasm']) {
    it(`follows standard attention's loss step for step on ${backend}`, async () => {
      await tf.setBackend(backend);
      await expectSameLossCurves();
    }, 120_000);
  }
});
