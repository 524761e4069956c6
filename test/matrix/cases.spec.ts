import {caseTable} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

/** Compiling takes lavapipe some 10 s a case on 2 cores; the whole table takes half an hour. */
const cases = process.env.WHOLE_TABLE ? caseTable() : sample(caseTable(), 8);

describe('the WGSL kernels over subgroup matrices', () => {
  specCases(cases, () => 'webgpu', ['matrix']);
});
