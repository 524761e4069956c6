import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import type {Task} from './prepare.js';

/**
 * tfjs' WebGPU backend as our kernels use it. Kernels with two outputs cannot go through `runWebGPUProgram`, so they
 * are recorded the way that method does it: into the backend's own command encoder and pass (order and batching of
 * submits stay tfjs'), with every tensor entered in `commandQueueOwnedIds`, so that a buffer is not handed out again
 * before the commands that use it are submitted. These fields are private in TypeScript only; checked with tfjs 4.22.
 */
interface Recorder {
  commandEncoder: GPUCommandEncoder|null;
  computePassEncoder: GPUComputePassEncoder|null;
  commandQueueOwnedIds: WeakSet<object>;
  uniformPendingDisposal: GPUBuffer[];
  dispatchCountInPass: number;
  activeTimers?: Array<{name: string, query: Promise<number>}>|null;
  supportTimestampQuery: boolean;
  querySet: GPUQuerySet|null;
  querySetCount: number;
}

type PublicMembers = Pick<
    WebGPUBackend,
    'device'|'queue'|'tensorMap'|'bufferManager'|'uploadToGPU'|'makeTensorInfo'|'disposeData'|
    'incRef'|'refCount'|'read'|'ensureCommandEncoderReady'|'endComputePassEncoder'|'submitQueue'|'getQueryTime'>;

export type Backend = PublicMembers&Recorder&{
  /** Where there is one, kernels add what they would run to it, and run nothing: see prepare_ahead. */
  readonly planned?: Task[],
};

/** One dispatch, ready to record. */
export interface Dispatch {
  /** What `tf.time` and `tf.profile` call it. */
  readonly name: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly workgroups: readonly [number, number];
  readonly tensors: readonly TensorInfo[];
  readonly uniforms: readonly GPUBuffer[];
  /** Little to do as a rule: it does not bring the next submit closer. */
  readonly isMinor: boolean;
}

/** Memory of a kernel's own: see scratch. */
export interface ScratchBuffer {
  readonly scratch: GPUBuffer;
}

/** The GPU buffer of a tensor, uploaded if its values are still on the host. */
export function bufferOf(backend: Backend, tensor: TensorInfo): GPUBuffer {
  // Reading the map also moves a tensor here that another backend holds.
  const data = backend.tensorMap.get(tensor.dataId as DataId);
  if (!data.resource) {
    backend.uploadToGPU(tensor.dataId);
  }
  return data.resource as GPUBuffer;
}

/** True for a tensor on a buffer that its maker brought (`tf.tensor({buffer, zeroCopy: true})`) and can take away. */
export function isExternal(backend: Backend, {dataId}: TensorInfo): boolean {
  return Boolean((backend.tensorMap.get(dataId as DataId) as {external?: boolean}).external);
}

/** A uniform buffer with these contents; `record` gives it back once its commands are submitted. */
export function uniformBuffer(backend: Backend, contents: ArrayBuffer): GPUBuffer {
  const buffer =
      backend.bufferManager.acquireBuffer(contents.byteLength, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  backend.queue.writeBuffer(buffer, 0, contents);
  return buffer;
}

/** Records a dispatch behind what tfjs has recorded so far, and submits when tfjs would. */
export function record(backend: Backend, dispatch: Dispatch, submitAfter: number): void {
  const timed = backend.activeTimers != null;
  backend.ensureCommandEncoderReady();
  const encoder = backend.commandEncoder!;
  if (timed && backend.supportTimestampQuery) {
    backend.endComputePassEncoder();
    backend.querySet ??= backend.device.createQuerySet({type: 'timestamp', count: backend.querySetCount});
    backend.computePassEncoder = encoder.beginComputePass(
        {timestampWrites: {querySet: backend.querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1}});
  }
  const pass = backend.computePassEncoder ??= encoder.beginComputePass();
  for (const {dataId} of dispatch.tensors) {
    backend.commandQueueOwnedIds.add(dataId);
  }
  backend.uniformPendingDisposal.push(...dispatch.uniforms);
  pass.setPipeline(dispatch.pipeline);
  pass.setBindGroup(0, dispatch.bindGroup);
  pass.dispatchWorkgroups(...dispatch.workgroups);
  backend.dispatchCountInPass += dispatch.isMinor ? 0 : 1;
  if (timed) {
    backend.endComputePassEncoder();
    backend.activeTimers!.push({name: dispatch.name, query: backend.getQueryTime()});
  } else if (backend.dispatchCountInPass >= submitAfter) {
    backend.endComputePassEncoder();
    backend.submitQueue();
  }
}
