import {enableWebGPU} from '../../src/index.js';

/** Either WebGPU is set as the backend, or `missing` says what is not there. */
export type WebGPUStatus = {readonly device: string, readonly hardware: boolean}|{readonly missing: string};

/** Sets tfjs' webgpu backend. Does not throw. */
export async function startWebGPU(): Promise<WebGPUStatus> {
  try {
    const {adapter, hardware} = await enableWebGPU();
    return {device: adapter, hardware};
  } catch (error) {
    return {missing: (error as Error).message.replace(/^flashAttention: /, '')};
  }
}
