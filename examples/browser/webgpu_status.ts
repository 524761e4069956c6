import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-webgpu';

/** Either WebGPU is set as the backend, or `missing` says what is not there. */
export type WebGPUStatus = {readonly device: string, readonly hardware: boolean}|{readonly missing: string};

async function whatIsMissing(): Promise<string|GPUAdapter> {
  if (!globalThis.isSecureContext) {
    return 'WebGPU is missing: browsers offer it only to pages from https:// or from localhost, and this page is from ' +
        `${location.origin}.`;
  }
  if (!navigator.gpu) {
    return 'WebGPU is missing: this browser has no navigator.gpu. Chrome and Edge have it from version 113 on ' +
        '(on Linux behind chrome://flags/#enable-unsafe-webgpu), Safari from 26, Firefox from 141 on Windows.';
  }
  const adapter = await navigator.gpu.requestAdapter({powerPreference: 'high-performance'});
  return adapter ?? 'WebGPU is missing an adapter: this browser knows WebGPU, but found no GPU that it may use. ' +
      'Check that hardware acceleration is on in its settings and that the GPU\'s driver is installed ' +
      '(chrome://gpu says more).';
}

/** Sets tfjs' webgpu backend. Does not throw. */
export async function startWebGPU(): Promise<WebGPUStatus> {
  try {
    const adapter = await whatIsMissing();
    if (typeof adapter === 'string') {
      return {missing: adapter};
    }
    if (!await tf.setBackend('webgpu')) {
      return {missing: 'WebGPU is there, but tfjs could not start its webgpu backend on it; the console says why.'};
    }
    const {vendor, architecture, description, isFallbackAdapter} = adapter.info;
    const device = [vendor, architecture, description].filter(Boolean).join(' ') || 'unnamed GPU';
    return {device, hardware: !isFallbackAdapter && !/swiftshader|llvmpipe|lavapipe/i.test(device)};
  } catch (error) {
    return {missing: `WebGPU does not start: ${(error as Error).message}`};
  }
}
