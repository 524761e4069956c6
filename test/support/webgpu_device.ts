import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import type {DeviceLimits} from '../../src/backends/webgpu/capabilities.js';
import {pretendLimits} from '../../src/backends/webgpu/device.js';
import {requestFullDevice} from '../../src/backends/webgpu/enable_webgpu.js';

export const webgpuBackend = () => tf.backend() as unknown as WebGPUBackend;
export const deviceOf = (): GPUDevice => webgpuBackend().device;

const FULL = 'webgpu-with-all-features';

/** The name of a WebGPU backend whose device has all that the adapter offers: `webgpu` itself, or one made here. */
export async function fullWebGPU(): Promise<string> {
  if (!tf.engine().registryFactory[FULL]) {
    await tf.setBackend('webgpu');
    const adapter = (await navigator.gpu.requestAdapter())!;
    if ([...adapter.features].every(name => deviceOf().features.has(name as GPUFeatureName))) {
      return 'webgpu';
    }
    const device = await requestFullDevice(adapter);
    tf.registerBackend(FULL, () => new WebGPUBackend(device, adapter.info));
    tf.copyRegisteredKernels('webgpu', FULL);
  }
  return FULL;
}

const STOCK = 'webgpu-without-features';

/** The name of a WebGPU backend on a device as tfjs makes one: without subgroups and all else that is optional. */
export async function stockWebGPU(): Promise<string> {
  if (!tf.engine().registryFactory[STOCK]) {
    await tf.setBackend('webgpu');
    const adapter = (await navigator.gpu.requestAdapter())!;
    const device = await adapter.requestDevice();
    tf.registerBackend(STOCK, () => new WebGPUBackend(device, adapter.info));
    tf.copyRegisteredKernels('webgpu', STOCK);
  }
  return STOCK;
}

/** Runs `f` while our kernels take the current device for one with smaller limits. */
export async function withLimits(smaller: Partial<DeviceLimits>, f: () => Promise<void>): Promise<void> {
  const device = deviceOf();
  pretendLimits(device, smaller);
  try {
    await f();
  } finally {
    pretendLimits(device);
  }
}

/** Errors that the device reports outside of any error scope while `f` runs: there must be none. */
export async function deviceErrors(f: () => Promise<void>): Promise<string[]> {
  const device = deviceOf();
  const errors: string[] = [];
  const listen = (event: Event) => errors.push((event as GPUUncapturedErrorEvent).error.message);
  device.addEventListener('uncapturederror', listen);
  await f();
  await device.queue.onSubmittedWorkDone();
  device.removeEventListener('uncapturederror', listen);
  return errors;
}
