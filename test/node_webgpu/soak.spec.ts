import * as tf from '@tensorflow/tfjs';

import {keptSizes} from '../../src/backends/webgpu/device.js';
import {BOUNDS} from '../support/soak_memory.js';
import {Soak} from '../support/soak_steps.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceErrors, deviceOf, webgpuBackend} from '../support/webgpu_device.js';

/** A taste of test/soak_device.ts, which also looks at the process. */
describe('training steps in changing shapes and options', () => {
  it('leave nothing behind', async () => {
    await tf.setBackend('webgpu');
    const errors = await deviceErrors(async () => {
      const outside = tf.memory().numTensors;
      const soak = new Soak();
      const states: object[] = [];
      for (let cycle = 0; cycle < 4; cycle++) {
        for (let n = 0; n < Soak.cycle; n++) {
          await soak.step();
        }
        const {numTensors, numBytes, numDataBuffers} = tf.memory();
        const {bindGroups, ...kept} = keptSizes(deviceOf());
        expect(bindGroups).toBeLessThanOrEqual(BOUNDS.bindGroups);
        states.push({
          numTensors, numBytes, numDataBuffers, dataIds: webgpuBackend().numDataIds(), ...kept,
          gpu: webgpuBackend().bufferManager.numBytesAllocated,
        });
      }
      expect(states[3]).toEqual(states[2]);
      soak.dispose();
      expect(tf.memory().numTensors).toBe(outside);
    });
    expect(errors).toEqual([]);
  }, SLOW_MS);
});
