import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import {caseTable} from '../support/cases.js';
import {judgeCase} from '../support/run_case.js';
import {SLOW_MS} from '../support/specs.js';

const CALL = 'run_workgroup(group_id, groups, index, lanes_of_row(index, size));';

/** Runs `f` on a device where the thread that calls itself `index` is another one: subgroups hold other threads. */
async function withThreadsMoved(index: string, f: () => Promise<void>) {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = await adapter.requestDevice({requiredFeatures: ['subgroups' as GPUFeatureName]});
  const createShaderModule = device.createShaderModule.bind(device);
  let moved = 0;
  device.createShaderModule = descriptor => {
    moved += Number(descriptor.code.includes(CALL));
    return createShaderModule({
      ...descriptor, code: descriptor.code.replace(CALL, `let at = ${index}; ${CALL.replaceAll('index', 'at')}`),
    });
  };
  tf.registerBackend('moved-webgpu', () => new WebGPUBackend(device, adapter.info));
  if (!tf.getKernel('Add', 'moved-webgpu')) {
    tf.copyRegisteredKernels('webgpu', 'moved-webgpu');
  }
  await tf.setBackend('moved-webgpu');
  forcePlan('subgroup');
  try {
    await f();
  } finally {
    forcePlan(undefined);
    await tf.setBackend('webgpu');
    tf.removeBackend('moved-webgpu');
  }
  expect(moved).toBeGreaterThan(0);
}

describe('subgroups that are not neighbours', () => {
  const orders: Array<[string, string]> = [
    ['backwards', 'THREADS - 1u - index'],
    ['moved by one', '(index + 1u) % THREADS'],
    ['with the first and third bit swapped', '(index & ~5u) | ((index & 1u) << 2u) | ((index >> 2u) & 1u)'],
    ['with the second and fifth bit swapped', '(index & ~18u) | ((index & 2u) << 3u) | ((index >> 3u) & 2u)'],
    ['with the third and sixth bit swapped', '(index & ~36u) | ((index & 4u) << 3u) | ((index >> 3u) & 4u)'],
  ];
  const cases = ['Nq127 Nk127 Hq2 Hkv2 D64 Dv64 bnhd causal', 'Nq65 Nk127 Hq2 Hkv2 D96 Dv96 bnhd causal']
      .map(part => caseTable().find(({name}) => name.includes(part))!);
  for (const [name, index] of orders) {
    it(`give the same, ${name}`, async () => {
      await withThreadsMoved(index, async () => {
        for (const c of cases) {
          expect((await judgeCase(c)).filter(({ok}) => !ok).map(({message}) => message)).toEqual([]);
        }
      });
    }, SLOW_MS);
  }
});
