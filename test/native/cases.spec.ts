import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {nativeAddon} from '../../src/backends/native/load.js';
import {caseTable} from '../support/cases.js';
import {expectNativeCalls} from '../support/native_calls.js';
import {sample, specCases} from '../support/specs.js';

/** In order of worth: a CPU with one has those behind it. */
const INSTRUCTION_SETS = ['avx512', 'avx2', 'portable'];

const {binding} = nativeAddon();
const best = binding?.instructionSet() ?? 'portable';

for (const set of INSTRUCTION_SETS.slice(INSTRUCTION_SETS.indexOf(best))) {
  describe(`the addon on cpu with ${set} instructions`, () => {
    beforeAll(() => {
      expect(binding!.forceInstructionSet(set)).toBe(true);
    });
    expectNativeCalls('host');
    specCases(caseTable(), () => 'cpu');
    afterAll(() => {
      expect(binding!.instructionSet()).toBe(set);
      binding!.forceInstructionSet(best);
    });
  });
}

describe('the addon on wasm', () => {
  expectNativeCalls('host');
  specCases(sample(caseTable(), 4), () => 'wasm');

  it('follows memory that grows during a call', async () => {
    await tf.setBackend('wasm');
    const {flashAttention} = await import('../../src/index.js');
    const x = tf.ones<tf.Rank.R4>([1, 4096, 8, 64]);
    // Each output is 8 MB; the heap begins with 16.
    const {gradient, outputs} = tf.tidy(() => {
      const outputs = Array.from({length: 4}, () => tf.max(tf.abs(flashAttention(x, x, x, {windowSize: [3, 0]}))));
      return {
        gradient: tf.keep(tf.max(tf.grad(y => flashAttention(x, x, y as tf.Tensor4D, {windowSize: [3, 0]}))(x))),
        outputs: outputs.map(output => output.dataSync()[0]),
      };
    });
    outputs.forEach(output => expect(output).toBeCloseTo(1, 6));
    expect(gradient.dataSync()[0]).toBeGreaterThan(0);
    tf.dispose([x, gradient]);
  });
});
