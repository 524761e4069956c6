import * as tf from '@tensorflow/tfjs';

import {caseTable} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

// tfjs' webgl backend has no kernel of ours: the TypeScript one reads its textures and writes the results back.
describe('the TypeScript kernel on webgl', () => {
  beforeAll(async () => {
    if (!await tf.setBackend('webgl')) {
      throw new Error('this browser gives no WebGL');
    }
  });

  specCases(sample(caseTable(), 9), () => 'webgl');

  afterAll(() => tf.setBackend('webgpu'));
});

describe('the TypeScript kernel on cpu in a browser', () => {
  specCases(sample(caseTable(), 12), () => 'cpu');

  afterAll(() => tf.setBackend('webgpu'));
});
