import {submitRecorded} from './allocations.js';
import type {Backend} from './backend.js';

/** Times what is recorded on a device: by its own clock, if it shows it, or from here to the end of its work. */
export class Stopwatch {
  private readonly querySet?: GPUQuerySet;
  private readonly resolved?: GPUBuffer;
  private readonly readable?: GPUBuffer;

  constructor(private readonly backend: Backend) {
    const {device} = backend;
    if (device.features.has('timestamp-query')) {
      this.querySet = device.createQuerySet({type: 'timestamp', count: 2});
      this.resolved = device.createBuffer({size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
      this.readable = device.createBuffer({size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
    }
  }

  /** Milliseconds that the device takes for what `record` records. */
  async time(record: () => void): Promise<number> {
    const {backend, querySet} = this;
    submitRecorded(backend);
    await backend.queue.onSubmittedWorkDone();
    const start = performance.now();
    if (querySet) {
      this.mark({querySet, beginningOfPassWriteIndex: 0});
    }
    record();
    submitRecorded(backend);
    const measured = querySet && await this.readClock(querySet);
    // Some drivers leave out passes in which nothing happens, and their timestamps.
    if (measured && measured > 0) {
      return measured;
    }
    await backend.queue.onSubmittedWorkDone();
    return performance.now() - start;
  }

  private mark(timestampWrites: GPUComputePassTimestampWrites, then?: (encoder: GPUCommandEncoder) => void) {
    const encoder = this.backend.device.createCommandEncoder();
    encoder.beginComputePass({timestampWrites}).end();
    then?.(encoder);
    this.backend.queue.submit([encoder.finish()]);
  }

  private async readClock(querySet: GPUQuerySet): Promise<number> {
    const [resolved, readable] = [this.resolved!, this.readable!];
    this.mark({querySet, endOfPassWriteIndex: 1}, encoder => {
      encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, readable, 0, 16);
    });
    await readable.mapAsync(GPUMapMode.READ);
    const [begin, end] = new BigUint64Array(readable.getMappedRange());
    readable.unmap();
    return Number(end - begin) / 1e6;
  }

  dispose() {
    this.querySet?.destroy();
    this.resolved?.destroy();
    this.readable?.destroy();
  }
}
