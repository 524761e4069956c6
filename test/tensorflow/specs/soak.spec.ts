import * as tf from '@tensorflow/tfjs';

import {nativeCalls} from '../../support/native_calls.js';
import {courses} from '../../support/soak_memory.js';
import type {MemorySample} from '../../support/soak_memory.js';
import {Soak} from '../../support/soak_steps.js';
import {SLOW_MS} from '../../support/specs.js';

const STEPS = 1000;
const WARM_UP = 200;

/** The part of tfjs-node's backend that counts what TensorFlow holds. */
interface NodeBackend extends tf.KernelBackend {
  binding: {getNumOfTensors(): number};
}

function sample(): MemorySample {
  global.gc!();
  const {numTensors, numDataBuffers, numBytes} = tf.memory();
  const backend = tf.backend() as NodeBackend;
  return {
    numTensors, numDataBuffers, numBytes, dataIds: backend.numDataIds(), handles: backend.binding.getNumOfTensors(),
    rss: process.memoryUsage.rss(),
  };
}

describe(`${STEPS} training steps on tensorflow`, () => {
  it('leave nothing behind: tensors, TensorFlow\'s handles and the memory of the process', async () => {
    await tf.setBackend('tensorflow');
    const {tensorflow: before} = nativeCalls();
    const soak = new Soak();
    const samples: MemorySample[] = [];
    for (let n = 1; n <= STEPS; n++) {
      await soak.step();
      // At the same place of the cycle of kinds each time.
      if (n > WARM_UP && n % Soak.cycle === 0) {
        samples.push(sample());
      }
    }
    soak.dispose();
    // Forward and backward of the step, and a step of generation: append and forward.
    expect(nativeCalls().tensorflow - before).toBeGreaterThanOrEqual(4 * STEPS);
    for (const {name, first, last, flat} of courses(samples)) {
      console.log(`${name}: ${first} → ${last} in ${STEPS - WARM_UP} steps`);
      expect(flat).withContext(`${name}: ${first} → ${last}`).toBeTrue();
    }
  }, SLOW_MS);
});
