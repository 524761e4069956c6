import {FEW_QUERIES} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {caseTable} from '../support/cases.js';
import {specCases} from '../support/specs.js';
import {fullWebGPU, stockWebGPU} from '../support/webgpu_device.js';

const fewQueries = caseTable().filter(({queryLength}) => queryLength <= FEW_QUERIES);

/**
 * SwiftShader compiles for minutes what the table takes. So Node and the browser share it: every second case by `simt`
 * in Node and by `subgroup` in the browser, the others the other way round. With npm run test:full both run all of it
 * by both kinds.
 */
const kinds: PlanKind[] = typeof document === 'undefined' ? ['simt', 'subgroup'] : ['subgroup', 'simt'];

describe('the WGSL kernels', () => {
  if (process.env.TEST_FULL) {
    specCases(caseTable(), fullWebGPU, kinds);
  } else {
    kinds.forEach((kind, turn) => specCases(caseTable().filter((_, n) => n % 2 === turn), fullWebGPU, [kind]));
  }
});

describe('the WGSL kernels for few queries, with subgroups', () => {
  specCases(fewQueries, fullWebGPU, ['decode']);
});

describe('the WGSL kernels for few queries, without subgroups', () => {
  specCases(fewQueries, stockWebGPU, ['decode']);
});
