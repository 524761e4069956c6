import * as tf from '@tensorflow/tfjs';

import {enableWebGPU, flashAttention} from '../../src/index.js';
import type {WebGPUOptions} from '../../src/index.js';
import {restoreWebGPUAfterwards, useOwnBackend} from '../support/own_webgpu.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceOf, webgpuBackend} from '../support/webgpu_device.js';

const attend = (x: tf.Tensor) => flashAttention(x as tf.Tensor4D, x as tf.Tensor4D, x as tf.Tensor4D);
const valuesOf = async (f: () => tf.Tensor) => {
  const result = tf.tidy(f);
  try {
    return await result.data();
  } finally {
    result.dispose();
  }
};
const ones = () => tf.ones<tf.Rank.R4>([1, 4, 1, 4]);

async function messageOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'no error', (error: Error) => error.message);
}

describe('enableWebGPU', () => {
  restoreWebGPUAfterwards();
  // One without tensors that specs of other files have left, whichever spec comes first.
  beforeAll(async () => {
    await useOwnBackend();
  });

  it('gets all that the adapter offers, and reports it as plain data', async () => {
    const report = await enableWebGPU({replace: true});
    const adapter = (await navigator.gpu.requestAdapter({powerPreference: 'high-performance'}))!;
    const {features, limits} = deviceOf();
    expect(report.features).toEqual([...adapter.features].sort());
    expect(report.features).toEqual([...features].sort());
    for (const name of [
      'maxStorageBuffersPerShaderStage', 'maxBufferSize', 'maxComputeWorkgroupStorageSize',
    ] as const) {
      expect(report.limits[name]).withContext(name).toBe(adapter.limits[name]);
      expect(limits[name]).withContext(name).toBe(adapter.limits[name]);
    }
    expect(report.adapter.toLowerCase()).toContain(adapter.info.vendor);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
    const lacks = (name: string) => report.missing.some(missing => missing.name === name && missing.wouldGive !== '');
    for (const name of ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query']) {
      expect(lacks(name)).withContext(name).toBe(!features.has(name as GPUFeatureName));
    }
    if (/swiftshader/i.test(report.adapter)) {
      expect(report.hardware).toBe(false);
      expect(report.subgroupSizes).toEqual([4, 4]);
      expect(report.matrixConfigurations).toEqual([]);
      expect(lacks('maxStorageBufferBindingSize')).toBe(report.limits.maxStorageBufferBindingSize < 2 ** 30);
    }
    expect(tf.getBackend()).toBe('webgpu');
    expect(await valuesOf(() => attend(ones()))).toEqual(new Float32Array(16).fill(1));
  }, SLOW_MS);

  it('keeps the backend that it made, and what is on it, when it is called again', async () => {
    const first = await enableWebGPU();
    const backend = webgpuBackend();
    const x = ones();
    await tf.setBackend('cpu');
    expect(await enableWebGPU()).toEqual(first);
    expect(tf.getBackend()).toBe('webgpu');
    expect(webgpuBackend()).toBe(backend);
    expect(await x.data()).toEqual(new Float32Array(16).fill(1));
    x.dispose();
  }, SLOW_MS);

  it('makes one backend of calls that overlap', async () => {
    await useOwnBackend();
    const [a, b] = await Promise.all([enableWebGPU(), enableWebGPU()]);
    expect(a).toBe(b);
  }, SLOW_MS);

  it('takes the place of a running backend without tensors', async () => {
    const own = await useOwnBackend();
    const {replaced} = await enableWebGPU();
    expect(replaced).toEqual({what: 'backend', variablesMoved: 0, tensorsLost: 0});
    expect(webgpuBackend()).not.toBe(own);
  }, SLOW_MS);

  it('takes the place of a backend that is registered and has not started', async () => {
    tf.removeBackend('webgpu');
    const factory = jasmine.createSpy().and.throwError('started');
    tf.registerBackend('webgpu', factory);
    const {replaced} = await enableWebGPU();
    expect(replaced).toEqual({what: 'registration', variablesMoved: 0, tensorsLost: 0});
    expect(factory).not.toHaveBeenCalled();
    tf.removeBackend('webgpu');
    expect((await enableWebGPU()).replaced.what).toBe('nothing');
  }, SLOW_MS);

  it('leaves a running backend with tensors alone, and says how to go on', async () => {
    const own = await useOwnBackend();
    const x = ones();
    const y = tf.tidy(() => attend(x)); // on the device
    expect(await messageOf(enableWebGPU())).toMatch(
        /^flashAttention: a webgpu backend is running and holds 2 tensors.*enableWebGPU\(\{replace: true\}\)/);
    expect(webgpuBackend()).toBe(own);
    expect(await y.data()).toEqual(new Float32Array(16).fill(1));
    tf.dispose([x, y]);
  }, SLOW_MS);

  it('copies variables with replace, and gives up other tensors with a clear error', async () => {
    await useOwnBackend();
    const before = tf.memory().numTensors;
    const weights = tf.tidy(() => tf.variable(tf.randomNormal<tf.Rank.R4>([1, 4, 1, 4], 0, 1, 'float32', 5)));
    const steps = tf.tidy(() => tf.variable(tf.tensor1d([1, 2, 3], 'int32'), false));
    const shared = tf.tidy(() => tf.variable(weights)); // the same data
    const onDevice = tf.tidy(() => tf.mul(weights, 2));
    await onDevice.data();
    const lost = tf.tidy(() => attend(onDevice));
    const host = tf.tensor1d([7, 8, 9]); // was never used: it is still on the host
    const values = await weights.data();
    const adam = tf.train.adam(0.1);
    adam.minimize(() => tf.sum(attend(weights)));
    const trained = await weights.data();
    expect(trained).not.toEqual(values);
    const warn = spyOn(console, 'warn');
    const numTensors = tf.memory().numTensors;
    const {replaced} = await enableWebGPU({replace: true});
    expect(replaced.what).toBe('backend');
    // weights, the data that it shared with `shared` before it was trained, steps; Adam's moments and its two powers.
    expect(replaced.variablesMoved).toBe(7);
    // onDevice, lost, host.
    expect(replaced.tensorsLost).toBe(3);
    expect(warn).toHaveBeenCalledWith(jasmine.stringMatching(/enableWebGPU replaced a webgpu backend.*are gone/));
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(await weights.data()).toEqual(trained);
    expect(await shared.data()).toEqual(values);
    expect(await steps.data()).toEqual(new Int32Array([1, 2, 3]));
    expect(await valuesOf(() => tf.add(host, 1))).toEqual(new Float32Array([8, 9, 10]));
    adam.minimize(() => tf.sum(attend(weights)));
    expect(await weights.data()).not.toEqual(trained);
    const gone = /this tensor is gone: enableWebGPU\(\{replace: true\}\) replaced its backend/;
    expect(await messageOf(lost.data())).toMatch(gone);
    expect(() => tf.tidy(() => attend(lost))).toThrowError(gone);
    expect(() => tf.tidy(() => tf.add(lost, 1))).toThrowError(gone);
    tf.dispose([weights, steps, shared, onDevice, lost, host]);
    adam.dispose();
    expect(tf.memory().numTensors).toBe(before);
  }, SLOW_MS);

  it('sets how many dispatches tfjs submits at a time', async () => {
    const flag = 'WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE';
    await enableWebGPU();
    const before = tf.env().getNumber(flag);
    await enableWebGPU({submitBatchSize: 4});
    expect(tf.env().getNumber(flag)).toBe(4);
    await enableWebGPU();
    expect(tf.env().getNumber(flag)).toBe(4);
    tf.env().set(flag, before);
  }, SLOW_MS);

  it('changes nothing where a required feature is missing', async () => {
    const own = await useOwnBackend();
    expect(await messageOf(enableWebGPU({requiredFeatures: ['core-features-and-limits', 'telepathy']}))).toMatch(
        /^flashAttention: the WebGPU adapter .+ lacks telepathy \(requiredFeatures\)/);
    expect(webgpuBackend()).toBe(own);
    await enableWebGPU({requiredFeatures: ['timestamp-query']});
    const enabled = webgpuBackend();
    expect(await messageOf(enableWebGPU({requiredFeatures: ['telepathy']}))).toMatch(/lacks telepathy/);
    expect(webgpuBackend()).toBe(enabled);
  }, SLOW_MS);

  it('refuses malformed options', async () => {
    const malformed: Array<[object, RegExp]> = [
      [{power: 'low'}, /expected one of powerPreference, .* for the name of an option, received 'power'/],
      [{powerPreference: 'low'}, /expected 'high-performance' or 'low-power' for powerPreference, received 'low'/],
      [{requiredFeatures: 'subgroups'}, /expected an array of names .* for requiredFeatures, received 'subgroups'/],
      [{replace: 1}, /expected a boolean for replace, received 1/],
      [{submitBatchSize: 0}, /expected an integer of at least 1 for submitBatchSize, received 0/],
    ];
    for (const [options, message] of malformed) {
      expect(await messageOf(enableWebGPU(options as WebGPUOptions))).toMatch(message);
    }
  });
});
