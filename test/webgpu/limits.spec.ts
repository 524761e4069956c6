import * as tf from '@tensorflow/tfjs';

import {limitsOf} from '../../src/backends/webgpu/device.js';
import {flashAttentionVarlen} from '../../src/index.js';
import {caseTable} from '../support/cases.js';
import type {Case} from '../support/cases.js';
import {restoreWebGPUAfterwards, useOwnBackend} from '../support/own_webgpu.js';
import {attentionOf, judgeCase} from '../support/run_case.js';
import {SLOW_MS} from '../support/specs.js';
import {caseInputs} from '../support/cases.js';
import {deviceErrors, deviceOf, webgpuBackend, withLimits} from '../support/webgpu_device.js';

const named = (part: string): Case => {
  const found = caseTable().find(({name}) => name.includes(part));
  if (!found) {
    throw new Error(`no case named ${part}`);
  }
  return found;
};

async function failuresOf(c: Case): Promise<string[]> {
  return (await judgeCase(c)).filter(({ok}) => !ok).map(({message}) => message);
}

describe('a WebGPU device with small limits', () => {
  beforeAll(() => tf.setBackend('webgpu'));

  const cut: Array<[string, number]> = [
    // Smaller than k and v: windows of batches, heads, then queries and keys that add to each other's results.
    ['B2 Nq33 Nk129 Hq6 Hkv2 D24', 16384],
    ['B2 Nq33 Nk129 Hq6 Hkv2 D24', 3000],
    ['B2 Nq65 Nk80 Hq4 Hkv2 D32', 12000],
    ['B1 Nq65 Nk127 Hq2 Hkv2 D3', 1200],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd mask [2,4,70,130]', 34000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd causal bottom-right mask [2,4,70,130]', 34000],
    ['B2 Nq90 Nk67 Hq2 Hkv2 D13 Dv13 bhnd causal bottom-right dropout', 1500],
    ['B1 Nq70 Nk130 Hq2 Hkv2 D20 Dv20 bnhd causal bottom-right scale 0.224 nan', 5000],
    ['B1 Nq130 Nk70 Hq4 Hkv2 D64 Dv64 bnhd causal', 30000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D64 Dv64 bnhd top-left window [20,4] alibi by batch', 30000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd bias [1,4,70,130] normal', 9000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd bias [1,1,1,130] normal', 9000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bhnd bias [1,4,70,130] large', 4000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd bias [1,4,70,1] normal', 9000],
    ['B4 Nq70 Nk130 Hq2 Hkv2 D32 Dv32 bnhd causal bottom-right lengths of both', 9000],
    ['B3 Nq130 Nk70 Hq2 Hkv2 D20 Dv20 bnhd bottom-right alibi by batch lengths of both', 5000],
    ['B2 Nq130 Nk70 Hq4 Hkv2 D36 Dv36 bhnd top-left window [20,20] lengths of key sinks', 7000],
    ['B1 Nq70 Nk130 Hq2 Hkv2 D64 Dv64 bnhd causal bottom-right sinks scale 0.125 nan', 15000],
    ['B4 Nq1 Nk130 Hq8 Hkv2 D64 Dv64 bnhd causal bottom-right lengths of key', 20000],
  ];
  for (const [name, bytes] of cut) {
    it(`cuts ${name} into bindings of ${bytes} bytes`, async () => {
      await withLimits({maxStorageBufferBindingSize: bytes}, async () => {
        expect(await failuresOf(named(name))).toEqual([]);
      });
    }, SLOW_MS);
  }

  for (const name of ['Nq65 Nk127 Hq2 Hkv2 D256', 'Nq65 Nk127 Hq2 Hkv2 D64', 'Nq65 Nk66 Hq2 Hkv2 D128 Dv256']) {
    it(`runs ${name} in 16 KB of workgroup memory`, async () => {
      await withLimits({maxComputeWorkgroupStorageSize: 16384}, async () => {
        expect(await failuresOf(named(name))).toEqual([]);
      });
    }, SLOW_MS);
    it(`runs ${name} with 128 threads a workgroup`, async () => {
      await withLimits({maxComputeInvocationsPerWorkgroup: 128, maxComputeWorkgroupStorageSize: 16384}, async () => {
        expect(await failuresOf(named(name))).toEqual([]);
      });
    }, SLOW_MS);
  }

  it('cuts sequences that lie end to end into bindings of whole sequences', async () => {
    const shapes = [[140, 2, 8], [150, 2, 8], [150, 2, 8]];
    const [q, k, v] = shapes.map((shape, n) => tf.randomNormal<tf.Rank.R3>(shape as [number, number, number], 0, 1,
        'float32', n + 1));
    const [cuQ, cuK] = [[0, 5, 5, 70, 71, 140], [0, 40, 41, 41, 110, 150]];
    const run = async () => {
      const results = tf.tidy(() => {
        const f = (a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) =>
            flashAttentionVarlen(a, b, c, cuQ, cuK, {causal: true, alibiSlopes: [0.1, 0.2]});
        return [f(q, k, v), ...tf.grads(f)([q, k, v])];
      });
      const values = await Promise.all(results.map(result => result.data()));
      tf.dispose(results);
      return values;
    };
    const whole = await run();
    await withLimits({maxStorageBufferBindingSize: 5000}, async () => {
      // Sequences are independent: cutting between them changes nothing at all.
      expect(await run()).toEqual(whole);
    });
    tf.dispose([q, k, v]);
  }, SLOW_MS);

  it('makes dK and dV one after the other where both with mask and bias are too many buffers', async () => {
    const c = named('bias [1,4,70,130] withMinusInfinity mask [2,1,70,130] hiding 0.5 lengths of both sinks dropout');
    // A stock device has no more than 8 in earnest.
    const real = deviceOf().limits.maxStorageBuffersPerShaderStage;
    for (const maxStorageBuffersPerShaderStage of real > 8 ? [8, real] : [8]) {
      await withLimits({maxStorageBuffersPerShaderStage}, async () => {
        const {kernels} = await tf.profile(async () => {
          expect(await failuresOf(c)).toEqual([]);
          return [] as unknown as tf.Tensor;
        });
        const backward = kernels.find(({name}) => name === 'FlashAttentionGrad')!;
        const times = (await backward.extraInfo).split('backward_dkv').length - 1;
        expect(times).toBe(maxStorageBuffersPerShaderStage === 8 ? 2 : 1);
      });
    }
  }, SLOW_MS);

  it('lays more workgroups out than fit in one dimension', async () => {
    await withLimits({maxComputeWorkgroupsPerDimension: 13}, async () => {
      expect(await failuresOf(named('B8 Nq17 Nk19 Hq16 Hkv16'))).toEqual([]);
    });
  }, SLOW_MS);

  it('names the limit when there are too many workgroups, and keeps nothing', async () => {
    const x = tf.zeros<tf.Rank.R4>([2, 300, 2, 8]);
    const kept = () => [tf.memory().numTensors, webgpuBackend().numDataIds()];
    tf.tidy(() => x.flashAttention(x, x));
    const before = kept();
    await withLimits({maxComputeWorkgroupsPerDimension: 3}, async () => {
      expect(() => tf.tidy(() => x.flashAttention(x, x))).toThrowError(
          /\d+ workgroups exceed the WebGPU limit maxComputeWorkgroupsPerDimension \(3 each way\); split the batch/);
    });
    expect(kept()).toEqual(before);
    x.dispose();
  });

  it('names the limit when a gradient cannot exist, and keeps nothing', async () => {
    const x = tf.zeros<tf.Rank.R4>([1, 64, 2, 8]);
    const bias = tf.zeros<tf.Rank.R4>([1, 2, 64, 64]);
    // tfjs itself leaves what its tape saved behind where an error passes through a gradient. It knows of that.
    const unknown = () => webgpuBackend().numDataIds() - tf.memory().numDataBuffers;
    const before = unknown();
    await withLimits({maxBufferSize: 20000}, async () => {
      const gradients = tf.grads((k, b) => x.flashAttention(k, x, {bias: b}));
      expect(() => tf.tidy(() => gradients([x, bias]))).toThrowError(
          /the gradient of bias takes 32768 bytes, over the WebGPU limit maxBufferSize \(20000\); split the batch/);
    });
    expect(unknown()).toBe(before);
    tf.dispose([x, bias]);
  });

  it('names the limit when an output cannot exist, and keeps nothing', async () => {
    const x = tf.zeros<tf.Rank.R4>([1, 64, 2, 8]);
    const before = tf.memory();
    await withLimits({maxBufferSize: 1000}, async () => {
      expect(() => tf.tidy(() => x.flashAttention(x, x)))
          .toThrowError(/the output takes 4096 bytes, over the WebGPU limit maxBufferSize \(1000\)/);
    });
    expect(tf.memory().numTensors).toBe(before.numTensors);
    x.dispose();
  });

  it('gives the same bits cut or whole where windows do not meet in a result', async () => {
    // Batches are independent: cutting between them changes nothing at all.
    const c = named('B2 Nq65 Nk80 Hq2 Hkv1 D32');
    const inputs = caseInputs(c);
    const whole = await attentionOf(c, inputs);
    await withLimits({maxStorageBufferBindingSize: 20000}, async () => {
      expect(await attentionOf(c, inputs)).toEqual(whole);
    });
  }, SLOW_MS);

  it('is a real device here: the shadowed limits are gone', () => {
    expect(limitsOf(deviceOf()).maxComputeWorkgroupsPerDimension).toBe(65535);
  });
});

describe('a WebGPU device with no more than WebGPU guarantees', () => {
  restoreWebGPUAfterwards();

  beforeAll(async () => {
    await useOwnBackend();
    const {limits, features} = deviceOf();
    // Real ones, which the device holds us to.
    expect(limits.maxComputeWorkgroupStorageSize).toBe(16384);
    expect(limits.maxStorageBuffersPerShaderStage).toBe(8);
    expect(limits.maxBufferSize).toBe(2 ** 28);
    expect(features.has('subgroups' as GPUFeatureName)).toBe(false);
  }, SLOW_MS);

  for (const part of [
    'Nq65 Nk127 Hq2 Hkv2 D256', 'Nq65 Nk66 Hq2 Hkv2 D128 Dv256', 'B2 Nq33 Nk129 Hq6 Hkv2 D24',
    'Nq1 Nk200 Hq2 Hkv2 D40 Dv40 bnhd causal', 'B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd mask [2,4,70,130]',
    'bias [1,4,70,130] withMinusInfinity mask [2,1,70,130] hiding 0.5 lengths of both sinks dropout',
  ]) {
    it(`runs ${part}`, async () => {
      expect(await deviceErrors(async () => {
        expect(await failuresOf(named(part))).toEqual([]);
      })).toEqual([]);
    }, SLOW_MS);
  }
});
