import {FEW_QUERIES} from '../../src/backends/webgpu/choose.js';
import {caseTable} from '../support/cases.js';
import {specCases} from '../support/specs.js';
import {fullWebGPU, stockWebGPU} from '../support/webgpu_device.js';

const fewQueries = caseTable().filter(({queryLength}) => queryLength <= FEW_QUERIES);

/**
 * SwiftShader compiles for half an hour what the table takes. In Node each case runs by both kinds, in a browser by one
 * of them, in turn; by both with npm run test:full.
 */
const inTurn = typeof document !== 'undefined' && !process.env.TEST_FULL;

describe('the WGSL kernels', () => {
  if (inTurn) {
    specCases(caseTable().filter((_, n) => n % 2 === 0), fullWebGPU, ['simt']);
    specCases(caseTable().filter((_, n) => n % 2 === 1), fullWebGPU, ['subgroup']);
  } else {
    specCases(caseTable(), fullWebGPU, ['simt', 'subgroup']);
  }
});

describe('the WGSL kernels for few queries, with subgroups', () => {
  specCases(fewQueries, fullWebGPU, ['decode']);
});

describe('the WGSL kernels for few queries, without subgroups', () => {
  specCases(fewQueries, stockWebGPU, ['decode']);
});
