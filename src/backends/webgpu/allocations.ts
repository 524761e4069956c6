import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/** Below this an error scope costs more than it is worth (in Node as much as a call), and memory seldom runs out. */
const LARGE = 2 ** 20;

/** The parts of tfjs' BufferManager that are used here, some private in TypeScript only; checked with tfjs 4.22. */
interface BufferPool {
  readonly freeBuffers: Map<string, GPUBuffer[]>;
  numFreeBuffers: number;
  numBytesAllocated: number;
  releaseBuffer(buffer: GPUBuffer, reuse?: boolean): void;
}

type Watched = Pick<WebGPUBackend, 'device'|'bufferManager'|'endComputePassEncoder'|'submitQueue'>&
    {readonly commandEncoder: GPUCommandEncoder|null};

const watched = new WeakSet<GPUDevice>();

function empty(pool: BufferPool): void {
  for (const buffers of pool.freeBuffers.values()) {
    for (const buffer of buffers.splice(0)) {
      pool.numFreeBuffers--;
      pool.numBytesAllocated -= buffer.size;
      buffer.destroy();
    }
  }
}

/** Submits what tfjs has recorded so far: one command with a refused buffer, and none of its batch is carried out. */
export function submitRecorded(backend: Watched): void {
  if (backend.commandEncoder) {
    backend.endComputePassEncoder();
    backend.submitQueue();
  }
}

/**
 * tfjs keeps every buffer that it made for later tensors of the same size. So once memory has run out, disposing
 * tensors frees nothing, and a buffer that was refused serves one tensor after the other, each without contents and
 * without an error. With this on a backend, unused buffers are given back when memory runs out, and refused ones go.
 */
export function watchAllocations(backend: Watched): void {
  const {device, bufferManager} = backend;
  if (watched.has(device)) {
    return;
  }
  watched.add(device);
  const pool = bufferManager as unknown as BufferPool;
  const refused = new WeakSet<GPUBuffer>();
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = descriptor => {
    if (descriptor.size < LARGE) {
      return createBuffer(descriptor);
    }
    submitRecorded(backend);
    device.pushErrorScope('out-of-memory');
    let buffer: GPUBuffer|undefined;
    try {
      buffer = createBuffer(descriptor);
      return buffer;
    } finally {
      device.popErrorScope().then(error => {
        if (error) {
          if (buffer) {
            refused.add(buffer);
          }
          empty(pool);
          // As it would have gone without the scope.
          device.dispatchEvent(Object.assign(new Event('uncapturederror'), {error}));
        }
      }, () => undefined);
    }
  };
  const releaseBuffer = pool.releaseBuffer.bind(pool);
  pool.releaseBuffer = (buffer, reuse = true) => releaseBuffer(buffer, reuse && !refused.has(buffer));
}
