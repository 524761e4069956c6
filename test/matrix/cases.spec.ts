import {caseTable} from '../support/cases.js';
import {specCases} from '../support/specs.js';

describe('the WGSL kernels over subgroup matrices', () => {
  specCases(caseTable(), () => 'webgpu', ['matrix']);
});
