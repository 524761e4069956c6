import {extensionsOf, noteAdapter} from '../../src/backends/webgpu/capabilities.js';

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
