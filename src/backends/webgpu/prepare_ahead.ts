import type {TensorInfo} from '@tensorflow/tfjs-core';

import type {Backend} from './backend.js';
import {checkDevice, compilePipeline} from './device.js';
import {planOf} from './prepare.js';
import type {Task} from './prepare.js';

/**
 * What kernels see in the place of the backend while they are asked what they would run: tensors have shapes and no
 * contents, and nothing is allocated.
 */
function planningBackend(device: GPUDevice, planned: Task[]): Backend {
  const used: {[name in keyof Backend]?: unknown} = {
    device, planned, uniformPendingDisposal: [],
    makeTensorInfo: (shape: number[], dtype: TensorInfo['dtype']): TensorInfo => ({dataId: {}, shape, dtype}),
    uploadToGPU: () => undefined,
    disposeData: () => true,
    incRef: () => undefined,
    refCount: () => 0,
    tensorMap: {get: () => ({})},
    bufferManager: {acquireBuffer: () => ({}), releaseBuffer: () => undefined},
  };
  return used as Backend;
}

/** Compiles, at once and in the background, whatever pipelines the kernels called by `run` need and do not have. */
export async function prepareAhead(device: GPUDevice, run: (backend: Backend) => void): Promise<void> {
  const planned: Task[] = [];
  run(planningBackend(device, planned));
  await Promise.all(planned.map(task => compilePipeline(device, planOf(device, task).plan)));
  checkDevice(device);
}
