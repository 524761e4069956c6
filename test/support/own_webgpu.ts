import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/**
 * For specs that replace the `webgpu` backend: afterwards there is one as before, on which the other specs run (the
 * stock one of tfjs in browsers, with its small limits; the one of test/support/node_webgpu in Node).
 */
export function restoreWebGPUAfterwards(): void {
  let factory: ReturnType<typeof tf.findBackendFactory>;

  beforeAll(async () => {
    await tf.setBackend('webgpu');
    factory = tf.findBackendFactory('webgpu');
  });

  afterAll(async () => {
    const made = factory();
    if (made instanceof Promise) {
      (await made).dispose(); // made to see whether the factory makes new ones, as that of tfjs does
      tf.removeBackend('webgpu');
      // The factory, not what it has made: the next to come here may replace that, and needs a new one afterwards.
      tf.registerBackend('webgpu', factory, 3);
    }
    expect(await tf.setBackend('webgpu')).toBe(true);
  });
}

/** Puts a `webgpu` backend in place as a user's program would who made the device. */
export async function useOwnBackend(descriptor: GPUDeviceDescriptor = {}): Promise<WebGPUBackend> {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const backend = new WebGPUBackend(await adapter.requestDevice(descriptor), adapter.info);
  tf.removeBackend('webgpu');
  tf.registerBackend('webgpu', () => backend, 3);
  await tf.setBackend('webgpu');
  return backend;
}
