import type {BackendValues, DataId} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {submitRecorded, watchAllocations} from './allocations.js';
import type {Backend} from './backend.js';
import {awaitLoss, checkDevice, OutOfMemoryError} from './device.js';

/** Before anything else on a backend. @throws when something is wrong with its device. */
export function checkBackend(backend: Backend): void {
  if (backend.planned) {
    checkDevice(backend.device);
    return;
  }
  watchAllocations(backend);
  try {
    checkDevice(backend.device);
  } catch (error) {
    if (error instanceof OutOfMemoryError) {
      submitRecorded(backend); // what comes next is to be a batch of its own
    }
    throw error;
  }
}

/**
 * Makes tfjs' own ops and reads on a backend say what is wrong with its device, as our kernels do. Left to itself tfjs
 * goes on recording on a lost device, hands out zeros after memory ran out, and reads fail with an empty AbortError.
 */
export function guardBackend(backend: WebGPUBackend): WebGPUBackend {
  const check = () => checkBackend(backend as unknown as Backend);
  check(); // and listens from now on
  const runWebGPUProgram = backend.runWebGPUProgram.bind(backend);
  backend.runWebGPUProgram = (...args) => {
    check();
    return runWebGPUProgram(...args);
  };
  const read = backend.read.bind(backend);
  backend.read = async dataId => {
    let values: BackendValues;
    try {
      values = await read(dataId);
    } catch (error) {
      await awaitLoss(backend.device);
      check();
      throw error;
    }
    check();
    return values;
  };
  return backend;
}

/**
 * For a backend that was replaced: whatever of its tensors is still on the host can be read, and so tfjs moves it to
 * where it is used; reading any other throws.
 */
export function retireBackend(backend: WebGPUBackend, reason: string): void {
  const readSync = (dataId: object): BackendValues => {
    const values = backend.tensorMap.has(dataId as DataId) && backend.tensorMap.get(dataId as DataId).values;
    if (!values) {
      throw new Error(`flashAttention: this tensor is gone: ${reason}`);
    }
    return values;
  };
  backend.readSync = readSync;
  backend.read = async dataId => readSync(dataId);
}
