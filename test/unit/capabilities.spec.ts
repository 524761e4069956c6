import {
  adapterIdentity, adapterOf, extensionsOf, noteAdapter, noteWinners,
} from '../../src/backends/webgpu/capabilities.js';
import {formatWinners, setWinnerStorage} from '../../src/backends/webgpu/winners.js';

const LIMITS = {maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 16384} as GPUSupportedLimits;

/** As much of a GPUDevice as is looked at. */
function device(features: string[], adapterInfo?: object): GPUDevice {
  return {features: new Set(features), limits: LIMITS, adapterInfo} as unknown as GPUDevice;
}

const INFO = {
  subgroupMinSize: 32, subgroupMaxSize: 32,
  subgroupMatrixConfigs: [
    {componentType: 'f16', resultComponentType: 'f32', M: 16, N: 8, K: 16},
    {componentType: 'f16', resultComponentType: 'f16', M: 16, N: 8, K: 16},
    {componentType: 'i8', resultComponentType: 'i32', M: 16, N: 8, K: 32},
    {componentType: 'f16', resultComponentType: 'f32', M: 8, N: 8, K: 8},
  ],
};

describe('what a device offers', () => {
  it('is nothing beyond its limits where nothing was asked for, whatever the adapter has', () => {
    for (const stock of [device([], INFO), device([])]) {
      expect(extensionsOf(stock)).toEqual({f16: false, matrix: []});
    }
  });

  it('is what was asked for, with the sizes that the adapter tells', () => {
    const all = ['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix'];
    expect(extensionsOf(device(all, INFO))).toEqual({
      subgroups: {min: 32, max: 32}, f16: true, matrix: [{M: 16, N: 8, K: 16}, {M: 8, N: 8, K: 8}],
    });
  });

  it('is any size of subgroup where the adapter tells none', () => {
    expect(extensionsOf(device(['subgroups'])).subgroups).toEqual({min: 4, max: 128});
  });

  it('is no product of f16 matrices without f16', () => {
    expect(extensionsOf(device(['chromium-experimental-subgroup-matrix'], INFO)).matrix).toEqual([]);
    expect(extensionsOf(device(['shader-f16', 'chromium-experimental-subgroup-matrix'])).matrix).toEqual([]);
  });

  it('is what the adapter lists where the device lists nothing', () => {
    const features = ['shader-f16', 'chromium-experimental-subgroup-matrix'];
    const silent = device(features, {...INFO, subgroupMatrixConfigs: []});
    expect(extensionsOf(silent).matrix).toEqual([]);
    noteAdapter(silent, INFO as unknown as GPUAdapterInfo);
    expect(extensionsOf(silent).matrix).toEqual([{M: 16, N: 8, K: 16}, {M: 8, N: 8, K: 8}]);
  });
});

describe('who a winner is remembered by', () => {
  const info = {vendor: 'acme', architecture: 'gen-9', device: '', description: 'driver 1.2'};
  const stock = {limits: LIMITS, f16: false, matrix: []};
  const full = {...stock, f16: true, subgroups: {min: 32, max: 32}, matrix: [{M: 16, N: 8, K: 16}, {M: 8, N: 8, K: 8}]};

  const table: Array<[what: string, identity: string, expected: string]> = [
    ['a stock device', adapterIdentity(info, stock), 'acme gen-9 driver 1.2, workgroups 256, 16384 bytes'],
    ['one with all that there is', adapterIdentity(info, full),
      'acme gen-9 driver 1.2, subgroups 32-32, f16, matrices 16x8x16 8x8x8, workgroups 256, 16384 bytes'],
    ['an adapter without a name', adapterIdentity({}, stock), 'unnamed adapter, workgroups 256, 16384 bytes'],
    ['another driver', adapterIdentity({...info, description: 'driver 1.3'}, stock),
      'acme gen-9 driver 1.3, workgroups 256, 16384 bytes'],
  ];
  for (const [what, identity, expected] of table) {
    it(`is the adapter and what it gave: ${what}`, () => expect(identity).toBe(expected));
  }

  it('is read once a device, and added to', () => {
    const made = () => device(['subgroups'], info);
    const adapter = adapterOf(made());
    const stored = formatWinners({[adapter]: {one: 'simt', two: 'decode'}, b: {one: 'matrix'}});
    const read = jasmine.createSpy('read').and.returnValue(stored);
    setWinnerStorage(() => ({place: 'here', read, write: () => undefined}));
    try {
      const tuned = made();
      expect(extensionsOf(tuned).winners).toEqual({one: 'simt', two: 'decode'});
      noteWinners(tuned, {two: 'subgroup'});
      expect(extensionsOf(tuned).winners).toEqual({one: 'simt', two: 'subgroup'});
      expect(read).toHaveBeenCalledTimes(1);
      expect(adapterOf(tuned)).toBe(adapter);
      expect(extensionsOf(device([], info)).winners).withContext('a stock device').toBeUndefined();
    } finally {
      setWinnerStorage(undefined);
    }
  });
});
