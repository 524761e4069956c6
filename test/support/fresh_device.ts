import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {requestFullDevice} from '../../src/backends/webgpu/enable_webgpu.js';

/**
 * Runs `f` on a backend whose device has compiled nothing yet.
 * @param options.full whether the device has all that the adapter offers, or what tfjs asks for.
 */
export async function onFreshDevice(
    f: (device: GPUDevice) => Promise<void>,
    {change, full = false}: {change?: (device: GPUDevice) => void, full?: boolean} = {}) {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = full ? await requestFullDevice(adapter) : await adapter.requestDevice();
  change?.(device);
  tf.registerBackend('fresh-webgpu', () => new WebGPUBackend(device, adapter.info));
  if (!tf.getKernel('FlashAttention', 'fresh-webgpu')) {
    tf.copyRegisteredKernels('webgpu', 'fresh-webgpu');
  }
  await tf.setBackend('fresh-webgpu');
  try {
    await f(device);
  } finally {
    await tf.setBackend('webgpu');
    tf.removeBackend('fresh-webgpu');
    device.destroy();
  }
}

/** Runs a call to its end. */
export async function runs(call: () => tf.Tensor|tf.Tensor[]): Promise<tf.TypedArray[]> {
  const results = [tf.tidy(call)].flat();
  const values = await Promise.all(results.map(result => result.data()));
  tf.dispose(results);
  return values;
}
