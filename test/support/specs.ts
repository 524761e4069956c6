import * as tf from '@tensorflow/tfjs';

import type {Case} from './cases.js';
import {judgeCase} from './run_case.js';

/** SwiftShader on a busy two-core machine needs minutes for some things. */
export const SLOW_MS = 5 * 60 * 1000;

/** One spec for each case: forward and backward through the public op, judged, nothing left behind. */
export function specCases(cases: readonly Case[], backendName: () => string): void {
  for (const c of cases) {
    it(c.name, async () => {
      await tf.setBackend(backendName());
      const before = tf.memory();
      const failures = (await judgeCase(c)).filter(({ok}) => !ok).map(({message}) => message);
      expect(failures).toEqual([]);
      const after = tf.memory();
      expect(after.numTensors).withContext('tensors left behind').toBe(before.numTensors);
      expect(after.numDataBuffers).withContext('data buffers left behind').toBe(before.numDataBuffers);
    }, SLOW_MS);
  }
}

/** Every n-th case: a sample that keeps the order and so the spread of the table. */
export function sample(cases: readonly Case[], every: number): Case[] {
  return cases.filter((_, place) => place % every === 0);
}
