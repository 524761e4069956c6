import {MOST_BIND_GROUPS} from '../../src/backends/webgpu/device.js';

/** What a process and its backend hold at a moment, by name. */
export type MemorySample = Readonly<Record<string, number>>;

/** How one of those numbers went after the warm-up. */
export interface Course {
  readonly name: string;
  readonly first: number;
  readonly last: number;
  readonly allowed: number;
  readonly flat: boolean;
}

const MIB = 2 ** 20;

/**
 * How much more the later samples may show than the earlier ones. Tensors and buffers: nothing at all. What the garbage
 * collector and the allocator of the process see to comes and goes by a tenth, so the least of several samples counts.
 */
const TOLERANCES: Readonly<Record<string, {readonly share: number, readonly bytes: number}>> = {
  heapUsed: {share: 0.02, bytes: 2 * MIB},
  rss: {share: 0.05, bytes: 24 * MIB},
};

/** What grows until it is full: the pool hands out buffers in ever new orders, and each has its bind group. */
export const BOUNDS: Readonly<Record<string, number>> = {bindGroups: 2 * MOST_BIND_GROUPS};

/**
 * Compares the first third of the samples with the last.
 * @param samples after the warm-up, at least 3.
 */
export function courses(samples: readonly MemorySample[]): Course[] {
  const third = Math.floor(samples.length / 3);
  if (third === 0) {
    throw new Error(`expected at least 3 samples of memory after the warm-up, received ${samples.length}`);
  }
  return Object.keys(samples[0]).map(name => {
    const values = samples.map(sample => sample[name]);
    const tolerance = TOLERANCES[name];
    const of = tolerance ? Math.min : Math.max;
    const [first, last] = [of(...values.slice(0, third)), of(...values.slice(-third))];
    const allowed = BOUNDS[name] ?? (tolerance ? first * (1 + tolerance.share) + tolerance.bytes : first);
    return {name, first, last, allowed, flat: last <= allowed};
  });
}
