import * as tf from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';

import {optionsOf} from './case.js';
import type {Case} from './case.js';
import {judgeCase} from './run_case.js';

/** SwiftShader on a busy two-core machine needs minutes for some things. */
export const SLOW_MS = 15 * 60 * 1000;

/**
 * One spec for each case: forward and backward through the public op, judged, nothing left behind. Says at the end how
 * many of the cases that ran made use of each option.
 * @param kinds of WebGPU plans that kernels which have them must run by, one after the other; default: as chosen.
 *     `matrix` is judged as float16.
 */
export function specCases(
    cases: readonly Case[], backendName: () => string|Promise<string>,
    kinds: ReadonlyArray<PlanKind|undefined> = [undefined]): void {
  const covered = new Map<string, number>();

  for (const c of cases) {
    it(c.name, async () => {
      await tf.setBackend(await backendName());
      for (const kind of kinds) {
        const before = tf.memory();
        forcePlan(kind);
        const judged = await judgeCase(c, kind === 'matrix' ? 'float16' : 'float32');
        const failures = judged.filter(({ok}) => !ok).map(({message}) => message);
        expect(failures).withContext(kind ?? '').toEqual([]);
        const after = tf.memory();
        expect(after.numTensors).withContext('tensors left behind').toBe(before.numTensors);
        expect(after.numDataBuffers).withContext('data buffers left behind').toBe(before.numDataBuffers);
      }
      for (const option of ['cases', ...optionsOf(c)]) {
        covered.set(option, (covered.get(option) ?? 0) + 1);
      }
    }, SLOW_MS);
  }

  afterEach(() => forcePlan(undefined));

  afterAll(async () => {
    const counts = [...covered].sort((a, b) => b[1] - a[1]).map(([option, count]) => `${option} ${count}`);
    const by = kinds.filter(Boolean).join(', then ');
    console.log(`covered on ${await backendName()}${by && `, by plans of the kinds ${by}`}: ${counts.join(', ')}`);
  });
}

/** Every n-th case: a sample that keeps the order and so the spread of the table. */
export function sample(cases: readonly Case[], every: number): Case[] {
  return cases.filter((_, place) => place % every === 0);
}
