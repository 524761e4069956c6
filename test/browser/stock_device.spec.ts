import {caseTable} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

// test/webgpu/cases asks for all that the adapter offers; tfjs' own device, which most pages get, has none of it.
describe('the WGSL kernels on the device that tfjs makes', () => {
  specCases(sample(caseTable(), 8), () => 'webgpu');
});
