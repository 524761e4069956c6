import {caseTable} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

/** Compiling takes lavapipe some 25 s a case; the whole table takes more than an hour. */
const cases = process.env.WHOLE_TABLE ? caseTable() : sample(caseTable(), 16);

describe('the WGSL kernels over subgroup matrices', () => {
  specCases(cases, () => 'webgpu', ['matrix']);
});

/** Only the forward pass has them. */
const splitCases = process.env.WHOLE_TABLE ? caseTable() : sample(caseTable(), 24);

describe('the WGSL kernels over subgroup matrices of split operands, in float32', () => {
  specCases(splitCases, () => 'webgpu', ['matrix_split']);
});
