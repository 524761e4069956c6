import type {DataId, TensorInfo} from '@tensorflow/tfjs-core';

import type {Problem} from '../../op/problem.js';
import {SEQUENCE_FIELDS} from '../../op/sequences.js';

import {bufferOf} from './backend.js';
import type {Backend} from './backend.js';
import type {KernelName} from './kernel_names.js';
import {tableParts, tableWords} from './plan.js';
import type {Plan} from './plan.js';
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
  readonly tensor: keyof TableTensors;
  readonly from: number;
  readonly to: number;
  readonly words: number;
}

/** What the table of a window holds. */
export interface TableLayout {
  readonly bytes: number;
  readonly pieces: readonly Piece[];
}

/** The table of a window, or undefined where its kernel needs none. */
export function tableLayout(plan: Plan, problem: Problem, window: Window): TableLayout|undefined {
  const {kernel} = plan;
  const {batchFirst, batches} = window;
  if (tableWords(kernel, problem, batches) === 0) {
    return undefined;
  }
  const places = tablePlaces(kernel, problem, window);
  const {slopes, sinks, perBatch} = tableParts(kernel, problem);
  const pieces: Piece[] = [
    {
      tensor: 'alibiSlopes', from: batchFirst * places.slopesBatch, to: 0, words: slopes + batches * places.slopesBatch,
    },
    {tensor: 'sinks', from: 0, to: places.sinks, words: sinks},
    {
      tensor: 'sequences', from: batchFirst * SEQUENCE_FIELDS, to: places.sequences,
      words: batches * (perBatch - places.slopesBatch),
    },
  ];
  return {bytes: 16 * plan.tableVec4, pieces: pieces.filter(({words}) => words > 0)};
}

/** A table in a uniform buffer of the pool. */
export interface Table {
  readonly buffer: GPUBuffer;
  /** Tensors that are copied from on the device. */
  readonly tensors: readonly TensorInfo[];
}

/**
 * Fills a table. Values that the host has are written from there; others are copied on the device, in order with what
 * tfjs has recorded.
 */
export function makeTable(backend: Backend, {bytes, pieces}: TableLayout, tensors: TableTensors): Table {
  const buffer = backend.bufferManager.acquireBuffer(bytes, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const host = new ArrayBuffer(bytes);
  const onDevice: Piece[] = [];
  for (const piece of pieces) {
    const {dataId, dtype} = tensors[piece.tensor]!;
    const {values} = backend.tensorMap.get(dataId as DataId);
    if (values) {
      const words = dtype === 'int32' ? new Int32Array(host) : new Float32Array(host);
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
      const source = bufferOf(backend, tensors[tensor]!);
      backend.commandEncoder!.copyBufferToBuffer(source, 4 * from, buffer, 4 * to, 4 * words);
    }
  }
  return {buffer, tensors: onDevice.map(({tensor}) => tensors[tensor]!)};
}
