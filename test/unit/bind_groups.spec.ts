import {bindGroupOf, keptSizes, MOST_BIND_GROUPS} from '../../src/backends/webgpu/device.js';
import {VARIANT} from '../../src/backends/webgpu/prepare.js';
import {Random} from '../support/random.js';

interface Group {
  part: number;
  buffers: readonly GPUBuffer[];
}

const newDevice = () => ({
  limits: {}, lost: new Promise(() => undefined), addEventListener: () => undefined,
}) as unknown as GPUDevice;

const newBuffers = (count: number) => Array.from({length: count}, () => ({}) as GPUBuffer);

/** What bind groups are for here: which part and which buffers they were made for. */
function finder(device: GPUDevice) {
  let made = 0;
  const find = (part: number, ...buffers: GPUBuffer[]): Group => bindGroupOf(device, part, buffers, () => {
    made++;
    return {part, buffers} as unknown as GPUBindGroup;
  }) as unknown as Group;
  return {find, made: () => made};
}

describe('bind groups', () => {
  it('are made once for a part and its buffers, in their order', () => {
    const {find, made} = finder(newDevice());
    const [a, b, c] = newBuffers(3);
    const lists = [[a, b], [b, a], [a, c], [c, a], [a], [b], [a, b, c], [a, a]];
    for (let n = 0; n < 2; n++) {
      for (const part of [0, 1, 7]) {
        for (const buffers of lists) {
          expect(find(part, ...buffers)).toEqual({part, buffers});
        }
      }
    }
    expect(made()).toBe(3 * lists.length);
  });

  it('are those asked for where two have the same number', () => {
    const {find, made} = finder(newDevice());
    const [a] = newBuffers(1);
    for (let n = 0; n < 2; n++) {
      for (const part of [5, 5 + 2 ** 32]) {
        expect(find(part, a).part).toBe(part);
      }
    }
    expect(made()).toBe(3); // the one that came first is kept
  });

  it('hardly ever have the same number: those of a model of many layers are made once', () => {
    const {find, made} = finder(newDevice());
    const random = new Random(3);
    const buffers = newBuffers(300);
    const calls = Array.from({length: MOST_BIND_GROUPS - 1}, (_, n) =>
      ({part: n % 20, list: Array.from({length: 7}, () => buffers[random.integer(buffers.length)])}));
    for (let n = 0; n < 2; n++) {
      for (const {part, list} of calls) {
        expect(find(part, ...list).buffers).toBe(find(part, ...list).buffers);
      }
    }
    expect(made()).toBeGreaterThanOrEqual(calls.length);
    expect(made()).toBeLessThan(1.01 * calls.length);
  });

  it('are kept up to a bound', () => {
    const device = newDevice();
    const {find} = finder(device);
    for (let part = 0; part < 5 * MOST_BIND_GROUPS; part++) {
      find(part, ...newBuffers(2));
      expect(keptSizes(device).bindGroups).toBeLessThanOrEqual(2 * MOST_BIND_GROUPS);
    }
  });
});

describe('variants', () => {
  it('have a bit each', () => {
    const all = Object.values(VARIANT).reduce((bits, bit) => bits | bit, 0);
    expect(all).toBe(2 ** Object.keys(VARIANT).length - 1);
  });
});
