import * as tf from '@tensorflow/tfjs';

import {enableWebGPU, flashAttention} from '../../src/index.js';
import {restoreWebGPUAfterwards, useOwnBackend} from '../support/own_webgpu.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceOf, webgpuBackend} from '../support/webgpu_device.js';

const OUT = /^flashAttention: the WebGPU device ran out of memory \(.+\); results since then are undefined\. Free/;

/** A result of as many bytes as the device says that a buffer may have; SwiftShader then refuses it in earnest. */
function tooLarge(): tf.Tensor {
  const rows = Math.floor(deviceOf().limits.maxBufferSize / 4 / 256);
  return tf.tidy(() => flashAttention(tf.ones<tf.Rank.R4>([1, rows, 1, 1]), tf.ones([1, 1, 1, 1]),
      tf.ones([1, 1, 1, 256])));
}

const ones = (length = 4) => tf.ones<tf.Rank.R4>([1, length, 1, 4]);
const attend = (x: tf.Tensor4D) => flashAttention(x, x, x);

const messageOf = (promise: Promise<unknown>): Promise<string> =>
    promise.then(() => 'no error', (error: Error) => error.message);

async function works() {
  const result = tf.tidy(() => attend(ones()));
  expect(await result.data()).toEqual(new Float32Array(16).fill(1));
  result.dispose();
}

/** Free buffers of a size in tfjs' pool. */
const pooled = (bytes: number): number => {
  const {freeBuffers} = webgpuBackend().bufferManager as unknown as {freeBuffers: Map<string, GPUBuffer[]>};
  return [...freeBuffers.values()].flat().filter(({size}) => size === bytes).length;
};

const useWholeDevice = async () => {
  const {limits} = (await navigator.gpu.requestAdapter())!;
  const {maxBufferSize, maxStorageBufferBindingSize} = limits;
  return useOwnBackend({requiredLimits: {maxBufferSize, maxStorageBufferBindingSize}});
};

describe('a WebGPU device that runs out of memory', () => {
  restoreWebGPUAfterwards();

  beforeEach(() => {
    spyOn(console, 'error');
  });

  for (const [what, start] of [['on a device of enableWebGPU', () => enableWebGPU({replace: true})],
    ['on a device that is not ours', useWholeDevice]] as Array<[string, () => Promise<unknown>]>) {
    it(`says so at the next call, ${what}, leaks nothing, and goes on`, async () => {
      await start();
      await works();
      const before = tf.memory().numTensors;
      const unused = tf.tidy(() => attend(ones(128)));
      unused.dispose();
      await works(); // what it was recorded for is submitted
      expect(pooled(4 * 128 * 4)).toBeGreaterThan(0);

      const previous = tf.tidy(() => attend(ones())); // recorded, and not submitted
      const result = tooLarge();
      await deviceOf().queue.onSubmittedWorkDone();
      expect(console.error).toHaveBeenCalledWith(jasmine.stringMatching(OUT));
      expect(() => tf.tidy(() => attend(ones()))).toThrowError(OUT);
      expect(pooled(4 * 128 * 4)).withContext('unused buffers are given back').toBe(0);
      expect(await previous.data()).toEqual(new Float32Array(16).fill(1));
      previous.dispose();
      const {size} = webgpuBackend().tensorMap.get(result.dataId).resource as GPUBuffer;
      result.dispose();
      await works();
      expect(pooled(size)).withContext('a buffer that was refused is not used again').toBe(0);
      const allocated = webgpuBackend().bufferManager.numBytesAllocated;

      // The same again: a new buffer, refused again, and said again.
      const again = tooLarge();
      await deviceOf().queue.onSubmittedWorkDone();
      expect(() => tf.tidy(() => attend(ones()))).toThrowError(OUT);
      again.dispose();
      await works();
      expect(webgpuBackend().bufferManager.numBytesAllocated).toBeLessThanOrEqual(allocated);
      expect(tf.memory().numTensors).toBe(before);
    }, SLOW_MS);
  }

  it('says so when the result is read, where enableWebGPU made the backend', async () => {
    await enableWebGPU({replace: true});
    const result = tooLarge();
    expect(await messageOf(result.data())).toMatch(OUT);
    result.dispose();
    await works();
  }, SLOW_MS);
});
