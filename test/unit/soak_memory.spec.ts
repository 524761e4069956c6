import {BOUNDS, courses} from '../support/soak_memory.js';

const MIB = 2 ** 20;

/** Samples of one number in the course of time. */
const of = (name: string, ...values: number[]) => courses(values.map(value => ({[name]: value})))[0];

describe('the course of memory in a soak', () => {
  it('is flat where tensors and buffers stay as they were', () => {
    expect(of('numTensors', 22, 22, 22)).toEqual({name: 'numTensors', first: 22, last: 22, allowed: 22, flat: true});
    expect(of('gpuBytesAllocated', 9, 9, 8, 8, 8, 7).flat).toBe(true);
  });

  it('grows by a single tensor or byte', () => {
    expect(of('numTensors', 22, 22, 23).flat).toBe(false);
    expect(of('gpuBytesAllocated', 100, 100, 100, 100, 101, 100).flat).toBe(false);
  });

  it('leaves room for the garbage collector, by the least of several samples', () => {
    expect(of('rss', 450 * MIB, 444 * MIB, 542 * MIB, 453 * MIB, 461 * MIB, 520 * MIB).flat).toBe(true);
    expect(of('rss', 450 * MIB, 444 * MIB, 542 * MIB, 453 * MIB, 495 * MIB, 520 * MIB).flat).toBe(false);
    expect(of('heapUsed', 50 * MIB, 51 * MIB, 52.9 * MIB).flat).toBe(true);
    expect(of('heapUsed', 50 * MIB, 52 * MIB, 54 * MIB).flat).toBe(false);
  });

  it('lets bind groups grow to their bound, and no further', () => {
    expect(of('bindGroups', 10, 600, BOUNDS.bindGroups).flat).toBe(true);
    expect(of('bindGroups', 10, 600, BOUNDS.bindGroups + 1).flat).toBe(false);
  });

  it('needs samples', () => {
    expect(() => of('rss', 1, 1)).toThrowError(/at least 3 samples/);
  });
});
