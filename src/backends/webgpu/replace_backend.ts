import {engine, registerBackend, removeBackend} from '@tensorflow/tfjs-core';
import type {BackendValues, DataId, Variable} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {isLost} from './device.js';
import {retireBackend} from './guarded_backend.js';
import type {Replaced} from './report.js';

export const WEBGPU = 'webgpu';
const PRIORITY = 3; // as tfjs-backend-webgpu itself

/** The parts of tfjs' engine that are used here and private in TypeScript only; checked with tfjs 4.22. */
interface Engine {
  readonly registry: Record<string, unknown>;
  readonly registryFactory: Record<string, unknown>;
  readonly pendingBackendInit: Promise<boolean>|null;
  readonly state: {
    readonly registeredVariables: Record<string, Variable>,
    readonly tensorInfo: WeakMap<DataId, {backend: unknown}>,
  };
}

const privateEngine = () => engine() as unknown as Engine;

export const isRegistered = (): boolean => WEBGPU in privateEngine().registryFactory;

/** The `webgpu` backend that has started, whoever registered it. */
export async function runningBackend(): Promise<WebGPUBackend|undefined> {
  // One that is on its way would be there when it is too late.
  await privateEngine().pendingBackendInit;
  return privateEngine().registry[WEBGPU] as WebGPUBackend|undefined;
}

/** @throws when replacing the backend would take tensors away from a user who did not ask for it. */
export async function checkReplaceable(old: WebGPUBackend|undefined, replace: boolean): Promise<void> {
  const tensors = old?.numDataIds() ?? 0;
  if (tensors > 0 && !replace && !await isLost(old!.device)) {
    throw new Error(
        `flashAttention: a webgpu backend is running and holds ${tensors} tensors, which a new one would not have. ` +
        'Call enableWebGPU before the first tensor is made on it, or enableWebGPU({replace: true}): that copies all ' +
        'variables (weights of models, moments of optimizers) and gives up every other tensor');
  }
}

interface MovingVariable {
  readonly variable: Variable;
  readonly values: BackendValues;
}

async function readVariables(old: WebGPUBackend): Promise<MovingVariable[]> {
  const {registeredVariables} = privateEngine().state;
  const onIt = Object.values(registeredVariables).filter(
      ({dataId, dtype}) => old.tensorMap.has(dataId as DataId) && dtype !== 'complex64');
  // Variables that were assigned from one tensor share its data.
  const different = [...new Map(onIt.map(variable => [variable.dataId, variable])).values()];
  return Promise.all(different.map(async variable => ({variable, values: await old.read(variable.dataId)})));
}

/**
 * Registers `backend` as tfjs' `webgpu`, in the place of what was there. tfjs cannot list the tensors of a backend, and
 * outside of browsers cannot read one synchronously, as it would when a tensor is used on another backend. Variables it
 * does list: they are copied. Every other tensor of the old backend says that it is gone when it is used.
 */
export async function replaceBackend(old: WebGPUBackend|undefined, backend: WebGPUBackend): Promise<Replaced> {
  const {tensorInfo} = privateEngine().state;
  const lost = old !== undefined && await isLost(old.device);
  const moving = old && !lost ? await readVariables(old) : [];
  // Nothing is awaited from here on: whatever the user's program does, it finds the old backend or the new one.
  let variablesMoved = 0;
  for (const {variable: {dataId, shape, dtype}, values} of moving) {
    if (old!.tensorMap.has(dataId as DataId)) {
      const references = old!.refCount(dataId as DataId);
      old!.disposeData(dataId as DataId, true);
      tensorInfo.get(dataId as DataId)!.backend = backend;
      backend.move(dataId as DataId, values, shape, dtype, references);
      variablesMoved++;
    }
  }
  const tensorsLost = old?.numDataIds() ?? 0;
  if (old) {
    retireBackend(old, lost ? 'its WebGPU device was lost' : 'enableWebGPU({replace: true}) replaced its backend');
  }
  const wasRegistered = isRegistered();
  if (wasRegistered) {
    removeBackend(WEBGPU);
  }
  registerBackend(WEBGPU, () => backend, PRIORITY);
  await engine().setBackend(WEBGPU);
  const what = lost ? 'lost backend' : old ? 'backend' : wasRegistered ? 'registration' : 'nothing';
  return {what, variablesMoved, tensorsLost};
}
