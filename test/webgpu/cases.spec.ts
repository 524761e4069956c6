import {FEW_QUERIES} from '../../src/backends/webgpu/choose.js';
import {caseTable} from '../support/cases.js';
import {specCases} from '../support/specs.js';
import {fullWebGPU, stockWebGPU} from '../support/webgpu_device.js';

const fewQueries = caseTable().filter(({queryLength}) => queryLength <= FEW_QUERIES);

describe('the WGSL kernels', () => {
  specCases(caseTable(), fullWebGPU, ['simt', 'subgroup']);
});

describe('the WGSL kernels for few queries, with subgroups', () => {
  specCases(fewQueries, fullWebGPU, ['decode']);
});

describe('the WGSL kernels for few queries, without subgroups', () => {
  specCases(fewQueries, stockWebGPU, ['decode']);
});
