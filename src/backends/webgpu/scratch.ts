import {util} from '@tensorflow/tfjs-core';

import type {Backend, ScratchBuffer} from './backend.js';
import {checkSize, limitsOf} from './device.js';

/** Buffers by size that are on their way into the pool with the next submit, of calls that are recorded. */
const idle = new WeakMap<GPUCommandEncoder, Map<number, GPUBuffer[]>>();

function idleOf(encoder: GPUCommandEncoder, bytes: number): GPUBuffer[] {
  let bySize = idle.get(encoder);
  if (!bySize) {
    bySize = new Map();
    idle.set(encoder, bySize);
  }
  let buffers = bySize.get(bytes);
  if (!buffers) {
    buffers = [];
    bySize.set(bytes, buffers);
  }
  return buffers;
}

/**
 * What a kernel keeps on the device while it runs. tfjs hands a tensor's buffer out again once its commands are
 * submitted, since it may be written to by the queue until then. Scratch buffers are written by commands alone, which
 * run in order: so one serves all the calls that are recorded before a submit, and memory is that of one call. And as
 * each call gets the buffers of the one before, their bind groups are found again.
 */
class Scratch {
  private readonly taken: GPUBuffer[] = [];

  constructor(private readonly backend: Backend) {}

  /** A buffer of as many words as a float32 tensor of the shape has, without contents. */
  take(name: string, shape: readonly number[]): ScratchBuffer {
    const {backend} = this;
    const bytes = 4 * util.sizeFromShape(shape as number[]);
    checkSize(limitsOf(backend.device), name, bytes);
    let scratch = backend.commandEncoder ? idleOf(backend.commandEncoder, bytes).pop() : undefined;
    if (scratch) {
      const pending = backend.uniformPendingDisposal;
      pending.splice(pending.lastIndexOf(scratch), 1);
    } else {
      // Not the usage that tensors have: the pool keeps these apart, and the same call gets the same each time.
      scratch = backend.bufferManager.acquireBuffer(bytes, GPUBufferUsage.STORAGE);
    }
    this.taken.push(scratch);
    return {scratch};
  }

  /** In the reverse order: whoever takes as many finds them in the order of before. */
  giveBack(): void {
    const {commandEncoder, uniformPendingDisposal, bufferManager} = this.backend;
    for (const buffer of this.taken.splice(0).reverse()) {
      if (commandEncoder) {
        uniformPendingDisposal.push(buffer);
        idleOf(commandEncoder, buffer.size).push(buffer);
      } else {
        bufferManager.releaseBuffer(buffer);
      }
    }
  }
}

export type {Scratch};

/** Runs `f` with scratch memory, which is given back when it returns or throws. */
export function withScratch<T>(backend: Backend, f: (scratch: Scratch) => T): T {
  const scratch = new Scratch(backend);
  try {
    return f(scratch);
  } finally {
    scratch.giveBack();
  }
}
