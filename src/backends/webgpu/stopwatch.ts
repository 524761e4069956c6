import {submitRecorded} from './allocations.js';
import type {Backend} from './backend.js';

/** Times calls on a device: by its own clock, if it shows it, or from here to the end of their work. */
export class Stopwatch {
  private readonly querySet?: GPUQuerySet;
  private readonly resolved?: GPUBuffer;
  private readonly readable?: GPUBuffer;

  /** @param mostCalls that are timed at once. */
  constructor(private readonly backend: Backend, private readonly mostCalls: number) {
    const {device} = backend;
    if (device.features.has('timestamp-query')) {
      const size = 16 * mostCalls;
      this.querySet = device.createQuerySet({type: 'timestamp', count: 2 * mostCalls});
      this.resolved = device.createBuffer({size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
      this.readable = device.createBuffer({size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
    }
  }

  /** Milliseconds that the device takes for a call that `record` records, the mean over `calls` of them. */
  async time(record: () => void, calls: number): Promise<number> {
    if (calls > this.mostCalls) {
      throw new Error(`flashAttention: ${calls} calls are timed at once, and there is room for ${this.mostCalls}`);
    }
    const {backend} = this;
    submitRecorded(backend);
    await backend.queue.onSubmittedWorkDone();
    const start = performance.now();
    for (let n = 0; n < calls; n++) {
      record();
      // Each call between two readings of the clock, so that waiting for JavaScript between calls does not count.
      this.mark(2 * n, 'beginningOfPassWriteIndex');
      submitRecorded(backend);
      this.mark(2 * n + 1, 'endOfPassWriteIndex');
    }
    const measured = await this.readClock(calls);
    // Some drivers leave out passes in which nothing happens, and their timestamps.
    if (measured > 0) {
      return measured / calls;
    }
    await backend.queue.onSubmittedWorkDone();
    return (performance.now() - start) / calls;
  }

  private mark(query: number, when: 'beginningOfPassWriteIndex'|'endOfPassWriteIndex') {
    if (this.querySet) {
      const encoder = this.backend.device.createCommandEncoder();
      encoder.beginComputePass({timestampWrites: {querySet: this.querySet, [when]: query}}).end();
      this.backend.queue.submit([encoder.finish()]);
    }
  }

  /** Milliseconds of the calls together; 0 where the device shows no clock, or one that does not run. */
  private async readClock(calls: number): Promise<number> {
    if (!this.querySet) {
      return 0;
    }
    const [resolved, readable] = [this.resolved!, this.readable!];
    const encoder = this.backend.device.createCommandEncoder();
    encoder.resolveQuerySet(this.querySet, 0, 2 * calls, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, readable, 0, 16 * calls);
    this.backend.queue.submit([encoder.finish()]);
    await readable.mapAsync(GPUMapMode.READ);
    const clock = [...new BigUint64Array(readable.getMappedRange(), 0, 2 * calls)];
    readable.unmap();
    const times = Array.from({length: calls}, (_, n) => Number(clock[2 * n + 1] - clock[2 * n]));
    // Browsers round the clock to 0.1 ms: single calls may take none of it.
    return times.every(time => time >= 0) ? times.reduce((sum, time) => sum + time, 0) / 1e6 : 0;
  }

  dispose() {
    this.querySet?.destroy();
    this.resolved?.destroy();
    this.readable?.destroy();
  }
}
