import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';

import type {Problem} from '../../op/problem.js';
import {SEQUENCE_FIELDS} from '../../op/sequences.js';

import {bufferOf} from './backend.js';
import type {Backend} from './backend.js';
import {tableParts, tableWords} from './plan.js';
import type {KernelName, Plan} from './plan.js';
import type {Window} from './windows.js';

/** Small tensors that kernels read from the uniform `table` (kernels/wgsl/table.wgsl). */
export interface TableTensors {
  readonly alibiSlopes?: TensorInfo;
  readonly sinks?: TensorInfo;
  readonly sequences?: TensorInfo;
}

/** Where their words begin in the table of a window. */
export interface TablePlaces {
  readonly slopes: number;
  /** Words from one batch's slopes to the next. */
  readonly slopesBatch: number;
  readonly sinks: number;
  readonly sequences: number;
}

export function tablePlaces(kernel: KernelName, problem: Problem, {batches}: Window): TablePlaces {
  const {slopes, sinks, perBatch} = tableParts(kernel, problem);
  const sequences = problem.hasSequences && perBatch >= SEQUENCE_FIELDS ? SEQUENCE_FIELDS : 0;
  const slopesBatch = slopes > 0 ? 0 : perBatch - sequences;
  const sinksAt = slopes + batches * slopesBatch;
  return {slopes: 0, slopesBatch, sinks: sinksAt, sequences: sinksAt + sinks};
}

/** A stretch of a tensor's words and where it goes in the table. */
interface Piece {
  readonly tensor: TensorInfo;
  readonly from: number;
  readonly to: number;
  readonly words: number;
}

function pieces(kernel: KernelName, problem: Problem, window: Window, tensors: TableTensors): Piece[] {
  const places = tablePlaces(kernel, problem, window);
  const parts = tableParts(kernel, problem);
  const {batchFirst, batches} = window;
  const list: Piece[] = [];
  const add = (tensor: TensorInfo|undefined, from: number, to: number, words: number) => {
    if (words > 0) {
      list.push({tensor: tensor!, from, to, words});
    }
  };
  add(tensors.alibiSlopes, batchFirst * places.slopesBatch, 0, parts.slopes + batches * places.slopesBatch);
  add(tensors.sinks, 0, places.sinks, parts.sinks);
  add(tensors.sequences, batchFirst * SEQUENCE_FIELDS, places.sequences,
      batches * (parts.perBatch - places.slopesBatch));
  return list;
}

/** What must be in a uniform buffer before a kernel runs. */
export interface Table {
  readonly buffer: GPUBuffer;
  /** Tensors that are copied from on the device. */
  readonly tensors: readonly TensorInfo[];
}

/**
 * The table of a window, or undefined where its kernel needs none. Values that the host has are written from there;
 * others are copied on the device, in order with what tfjs has recorded.
 */
export function makeTable(
    backend: Backend, plan: Plan, problem: Problem, window: Window, tensors: TableTensors): Table|undefined {
  if (tableWords(plan.kernel, problem, window.batches) === 0) {
    return undefined;
  }
  const bytes = 16 * plan.tableVec4;
  const buffer = backend.bufferManager.acquireBuffer(bytes, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const host = new ArrayBuffer(bytes);
  const onDevice: Piece[] = [];
  for (const piece of pieces(plan.kernel, problem, window, tensors)) {
    const {values} = backend.tensorMap.get(piece.tensor.dataId as DataId);
    if (values) {
      const words = piece.tensor.dtype === 'int32' ? new Int32Array(host) : new Float32Array(host);
      words.set((values as Float32Array).subarray(piece.from, piece.from + piece.words), piece.to);
    } else {
      onDevice.push(piece);
    }
  }
  backend.queue.writeBuffer(buffer, 0, host);
  if (onDevice.length > 0) {
    backend.ensureCommandEncoderReady();
    backend.endComputePassEncoder();
    for (const {tensor, from, to, words} of onDevice) {
      backend.commandEncoder!.copyBufferToBuffer(bufferOf(backend, tensor), 4 * from, buffer, 4 * to, 4 * words);
    }
  }
  return {buffer, tensors: onDevice.map(({tensor}) => tensor)};
}
