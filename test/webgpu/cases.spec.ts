import {caseTable} from '../support/cases.js';
import {specCases} from '../support/specs.js';
import {fullWebGPU} from '../support/webgpu_device.js';

describe('the WGSL kernels', () => {
  specCases(caseTable(), fullWebGPU, ['simt', 'subgroup']);
});
