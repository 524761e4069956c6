import {capabilitiesOf, noteAdapter} from '../../src/backends/webgpu/capabilities.js';

/** As much of a GPUDevice as is looked at. */
function device(features: string[], adapterInfo?: object): GPUDevice {
  return {features: new Set(features), limits: {maxBufferSize: 7}, adapterInfo} as unknown as GPUDevice;
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
      const {limits, ...rest} = capabilitiesOf(stock);
      expect(limits).toBe(stock.limits);
      expect(rest).toEqual({f16: false, matrix: []});
    }
  });

  it('is what was asked for, with the sizes that the adapter tells', () => {
    const all = ['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix'];
    const {limits, ...rest} = capabilitiesOf(device(all, INFO));
    expect(limits.maxBufferSize).toBe(7);
    expect(rest).toEqual({
      subgroups: {min: 32, max: 32}, f16: true, matrix: [{M: 16, N: 8, K: 16}, {M: 8, N: 8, K: 8}],
    });
  });

  it('is any size of subgroup where the adapter tells none', () => {
    expect(capabilitiesOf(device(['subgroups'])).subgroups).toEqual({min: 4, max: 128});
  });

  it('is no product of f16 matrices without f16', () => {
    expect(capabilitiesOf(device(['chromium-experimental-subgroup-matrix'], INFO)).matrix).toEqual([]);
    expect(capabilitiesOf(device(['shader-f16', 'chromium-experimental-subgroup-matrix'])).matrix).toEqual([]);
  });

  it('is what the adapter tells where the device leaves something out', () => {
    const {subgroupMatrixConfigs, ...less} = INFO;
    const made = device(['shader-f16', 'chromium-experimental-subgroup-matrix'], less);
    noteAdapter(made, {subgroupMatrixConfigs} as unknown as GPUAdapterInfo);
    expect(capabilitiesOf(made).matrix.length).toBe(2);
  });

  it('follows limits that change', () => {
    const shrinking = device([]);
    capabilitiesOf(shrinking);
    (shrinking as {limits: unknown}).limits = {maxBufferSize: 3};
    expect(capabilitiesOf(shrinking).limits.maxBufferSize).toBe(3);
  });
});
