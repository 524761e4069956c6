import {caseTable} from '../support/cases.js';
import type {Case} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

/** Kernels of larger heads take lavapipe minutes to compile; GPUs run them (test/verify_device.ts). */
const isSmall = ({headSize, valueSize}: Case): boolean => Math.max(headSize, valueSize) <= 128;

/** Compiling takes lavapipe some 25 s a case; the whole table takes more than an hour. */
const cases = process.env.WHOLE_TABLE ? caseTable() : sample(caseTable(), 16).filter(isSmall);

describe('the WGSL kernels over subgroup matrices', () => {
  specCases(cases, () => 'webgpu', ['matrix']);
});

/**
 * Only the forward pass has them. Of large heads, which two subgroups share: others have ended lavapipe's process (Mesa
 * 26.2 crashes while it compiles or runs some); GPUs run them all (test/verify_device.ts).
 */
const isLargeHead = ({headSize, valueSize, queryLength}: Case) =>
  headSize === 128 && valueSize === 128 && queryLength > 4;
const splitCases = process.env.WHOLE_TABLE ? caseTable() : caseTable().filter(isLargeHead);

describe('the WGSL kernels over subgroup matrices of split operands, in float32', () => {
  specCases(splitCases, () => 'webgpu', ['matrix_split']);
});
