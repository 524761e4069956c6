import * as tf from '@tensorflow/tfjs';

import {specMalformedCalls} from '../support/malformed_calls.js';
import {webgpuBackend} from '../support/webgpu_device.js';

describe('a malformed call on webgpu', () => {
  beforeAll(() => tf.setBackend('webgpu'));

  specMalformedCalls(() => {
    const {bufferManager} = webgpuBackend();
    return {used: bufferManager.getNumUsedBuffers(), bytes: bufferManager.numBytesAllocated};
  });
});
