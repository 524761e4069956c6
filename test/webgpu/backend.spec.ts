import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {flashAttention} from '../../src/index.js';
import {caseInputs, caseTable} from '../support/cases.js';
import {attentionOf} from '../support/run_case.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceErrors, deviceOf, webgpuBackend} from '../support/webgpu_device.js';

const attend = (x: tf.Tensor4D) => flashAttention(x, x, x, {causal: true});

describe('the WGSL kernels inside tfjs', () => {
  beforeAll(() => tf.setBackend('webgpu'));

  it('give the same bits every time', async () => {
    const parts = [
      'Nq200 Nk200 Hq2 Hkv2 D64 Dv64 bnhd causal', 'B2 Nq65 Nk80 Hq8 Hkv1', 'dropout 0.3', 'Nq1 Nk700 Hq8 Hkv2',
    ];
    for (const part of parts) {
      const c = caseTable().find(({name}) => name.includes(part))!;
      const inputs = caseInputs(c);
      const first = await attentionOf(c, inputs);
      for (let n = 0; n < 5; n++) {
        expect(await attentionOf(c, inputs)).toEqual(first);
      }
    }
  }, SLOW_MS);

  it('keep order with tfjs\' own kernels while buffers are freed and recycled', async () => {
    // Every step frees what the one before used, before anything is submitted.
    const x = tf.randomNormal<tf.Rank.R4>([1, 40, 2, 16], 0, 1, 'float32', 7);
    const chained = tf.tidy(() => {
      let y: tf.Tensor = x;
      for (let n = 0; n < 30; n++) {
        y = tf.tidy(() => tf.add(attend(tf.mul(y, 0.9) as tf.Tensor4D), x));
      }
      return y;
    });
    const together = await chained.data();
    let y: tf.Tensor = x.clone();
    for (let n = 0; n < 30; n++) {
      const next = tf.tidy(() => tf.add(attend(tf.mul(y, 0.9) as tf.Tensor4D), x));
      y.dispose();
      y = next;
      await y.data(); // submits and waits
    }
    expect(await y.data()).toEqual(together);
    tf.dispose([x, chained, y]);
  }, SLOW_MS);

  it('leave no tensor and no growing GPU memory behind', async () => {
    const x = tf.randomNormal<tf.Rank.R4>([1, 33, 2, 16]);
    const step = async () => {
      const gradient = tf.tidy(() => tf.grad(t => attend(t as tf.Tensor4D))(x));
      await gradient.data();
      gradient.dispose();
    };
    await step();
    await step();
    const manager = webgpuBackend().bufferManager;
    const state = () =>
        ({tensors: tf.memory().numTensors, bytes: manager.numBytesAllocated, used: manager.getNumUsedBuffers()});
    const before = state();
    for (let n = 0; n < 10; n++) {
      await step();
    }
    expect(state()).toEqual(before);
    x.dispose();
  }, SLOW_MS);

  it('allocate memory in proportion to the length', async () => {
    const allocated = async (length: number) => {
      // Enough heads that the keys are not split: the parts of split keys take memory that does not grow.
      const x = tf.randomNormal<tf.Rank.R4>([1, length, 32, 8]);
      await x.data();
      const before = webgpuBackend().bufferManager.numBytesAllocated;
      const gradient = tf.tidy(() => tf.grad(t => attend(t as tf.Tensor4D))(x));
      await gradient.data();
      const grown = webgpuBackend().bufferManager.numBytesAllocated - before;
      tf.dispose([x, gradient]);
      return grown;
    };
    const short = await allocated(301);
    const long = await allocated(301 * 3);
    expect(short).toBeGreaterThan(0);
    expect(long / short).toBeLessThan(3.2);
  }, SLOW_MS);

  it('raise no error on the device', async () => {
    const errors = await deviceErrors(async () => {
      const x = tf.ones<tf.Rank.R4>([2, 20, 2, 12]);
      const gradient = tf.tidy(() => tf.grad(t => attend(t as tf.Tensor4D))(x));
      await gradient.data();
      tf.dispose([x, gradient]);
    });
    expect(errors).toEqual([]);
  });

  it('handle empty problems', async () => {
    const [output, gradient] = tf.tidy(() => {
      const q = tf.ones<tf.Rank.R4>([1, 2, 1, 4]);
      const k = tf.ones<tf.Rank.R4>([1, 0, 1, 4]);
      return [flashAttention(q, k, k), tf.grad(t => flashAttention(t as tf.Tensor4D, k, k))(q)];
    });
    expect(await output.data()).toEqual(new Float32Array(8));
    expect(await gradient.data()).toEqual(new Float32Array(8));
    tf.dispose([output, gradient]);
  });

  it('are timed by tf.time and named by tf.profile', async () => {
    const x = tf.randomNormal<tf.Rank.R4>([1, 128, 2, 32]);
    await x.data();
    const time = await tf.time(() => tf.tidy(() => {
      attend(x);
    }));
    if (deviceOf().features.has('timestamp-query')) {
      expect(time.kernelMs as number).toBeGreaterThan(0);
    }
    const profile = await tf.profile(() => tf.tidy(() => tf.grad(t => attend(t as tf.Tensor4D))(x)));
    const backward = profile.kernels.find(({name}) => name === 'FlashAttentionGrad')!;
    expect(backward.extraInfo).toContain('FlashAttention row_statistics');
    expect(backward.extraInfo).toContain('FlashAttention backward_dq');
    expect(backward.extraInfo).toContain('FlashAttention backward_dkv');
    x.dispose();
  }, SLOW_MS);

  it('move tensors over from another backend', async () => {
    await tf.setBackend('cpu');
    const x = tf.randomNormal<tf.Rank.R4>([1, 9, 1, 4], 0, 1, 'float32', 3);
    const expected = tf.tidy(() => attend(x).dataSync());
    await tf.setBackend('webgpu');
    const moved = tf.tidy(() => attend(x));
    const actual = await moved.data();
    expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(1e-6);
    tf.dispose([x, moved]);
  });

  it('say so at the next call when memory ran out, and go on after that', async () => {
    const device = deviceOf();
    const x = tf.ones<tf.Rank.R4>([1, 4, 1, 4]);
    attend(x).dispose();
    const say = spyOn(console, 'error');
    // No memory in this machine is small enough to run out of: what WebGPU would say stands in for it.
    device.dispatchEvent(Object.assign(new Event('uncapturederror'), {error: new GPUOutOfMemoryError('simulated')}));
    expect(say).toHaveBeenCalledWith(jasmine.stringMatching(/ran out of memory \(simulated\)/));
    const before = tf.memory().numTensors;
    expect(() => attend(x)).toThrowError(/ran out of memory .* use a smaller batch or length/);
    expect(tf.memory().numTensors).toBe(before);
    const after = attend(x);
    expect(await after.data()).toEqual(new Float32Array(16).fill(1));
    tf.dispose([x, after]);
  });

  it('say so when the device refuses to compile a kernel', async () => {
    const adapter = (await navigator.gpu.requestAdapter())!;
    const refusing = await adapter.requestDevice();
    const createShaderModule = refusing.createShaderModule.bind(refusing);
    refusing.createShaderModule = descriptor =>
        createShaderModule({...descriptor, code: descriptor.code.replace('fn main(', 'fn main(oops')});
    tf.registerBackend('refusing-webgpu', () => new WebGPUBackend(refusing, adapter.info));
    tf.copyRegisteredKernels('webgpu', 'refusing-webgpu');
    await tf.setBackend('refusing-webgpu');
    const say = spyOn(console, 'error');
    const x = tf.ones<tf.Rank.R4>([1, 4, 1, 4]);
    attend(x);
    await refusing.queue.onSubmittedWorkDone();
    for (let n = 0; n < 50 && say.calls.count() === 0; n++) {
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    expect(say.calls.mostRecent().args[0]).toMatch(/forward kernel does not compile[^]*\n\d+:\d+ [^]*\d+ fn main\(/);
    expect(() => attend(x)).toThrowError(/forward kernel does not compile on this WebGPU device \(\d+:\d+ /);
    await tf.setBackend('webgpu');
    tf.removeBackend('refusing-webgpu');
  });

  it('say so when the device is lost, and work again on a new one', async () => {
    const adapter = (await navigator.gpu.requestAdapter())!;
    const doomed = await adapter.requestDevice();
    tf.registerBackend('doomed-webgpu', () => new WebGPUBackend(doomed, adapter.info));
    tf.copyRegisteredKernels('webgpu', 'doomed-webgpu');
    await tf.setBackend('doomed-webgpu');
    const x = tf.ones<tf.Rank.R4>([1, 4, 1, 4]);
    const alive = attend(x);
    await alive.data();
    doomed.destroy();
    await doomed.lost;
    await Promise.resolve();
    const before = tf.memory().numTensors;
    expect(() => attend(x)).toThrowError(/the WebGPU device was lost \(destroyed.*enableWebGPU/);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([x, alive]);
    await tf.setBackend('webgpu');
    tf.removeBackend('doomed-webgpu');
    const again = tf.tidy(() => attend(tf.ones([1, 4, 1, 4])));
    expect(await again.data()).toEqual(new Float32Array(16).fill(1));
    again.dispose();
  }, SLOW_MS);
});
