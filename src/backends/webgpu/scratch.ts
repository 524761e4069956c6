import {util} from '@tensorflow/tfjs-core';

import type {Backend, ScratchBuffer} from './backend.js';
import {checkSize, limitsOf} from './device.js';

/** Bytes of every buffer of scratch memory there ever was. To ask a buffer itself is a call into the device. */
const sizes = new WeakMap<GPUBuffer, number>();

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
  take(name: string, shape: number[]): ScratchBuffer {
    const {device, bufferManager, uniformPendingDisposal} = this.backend;
    const bytes = 4 * util.sizeFromShape(shape);
    checkSize(limitsOf(device), name, bytes);
    // What calls before this one gave back goes into the pool with the next submit. Commands may have it until then.
    let at = uniformPendingDisposal.length - 1;
    while (at >= 0 && sizes.get(uniformPendingDisposal[at]) !== bytes) {
      at--;
    }
    // Not the usage that tensors have: the pool keeps these apart, and the same call gets the same each time.
    const scratch = at >= 0 ? uniformPendingDisposal.splice(at, 1)[0] :
                              bufferManager.acquireBuffer(bytes, GPUBufferUsage.STORAGE);
    sizes.set(scratch, bytes);
    this.taken.push(scratch);
    return {scratch};
  }

  /** In the reverse order: whoever takes as many finds them in the order of before. */
  giveBack(): void {
    const {commandEncoder, uniformPendingDisposal, bufferManager} = this.backend;
    for (const buffer of this.taken.splice(0).reverse()) {
      if (commandEncoder) {
        uniformPendingDisposal.push(buffer);
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
