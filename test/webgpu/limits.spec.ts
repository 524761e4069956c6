import * as tf from '@tensorflow/tfjs';

import {caseTable} from '../support/cases.js';
import type {Case} from '../support/cases.js';
import {attentionOf, judgeCase} from '../support/run_case.js';
import {SLOW_MS} from '../support/specs.js';
import {caseInputs} from '../support/cases.js';
import {deviceOf, withLimits} from '../support/webgpu_device.js';

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
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd mask [2,4,70,130]', 16000],
    ['B2 Nq70 Nk130 Hq4 Hkv2 D16 Dv16 bnhd causal bottom-right mask [2,4,70,130]', 16000],
    ['B2 Nq90 Nk67 Hq2 Hkv2 D13 Dv13 bhnd causal bottom-right dropout', 1500],
    ['B1 Nq70 Nk130 Hq2 Hkv2 D20 Dv20 bnhd causal bottom-right scale 0.224 nan', 5000],
    ['B1 Nq130 Nk70 Hq4 Hkv2 D64 Dv64 bnhd causal', 30000],
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

  it('lays more workgroups out than fit in one dimension', async () => {
    await withLimits({maxComputeWorkgroupsPerDimension: 13}, async () => {
      expect(await failuresOf(named('B8 Nq17 Nk19 Hq16 Hkv16'))).toEqual([]);
    });
  }, SLOW_MS);

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
    expect(deviceOf().limits.maxComputeWorkgroupsPerDimension).toBe(65535);
  });
});
