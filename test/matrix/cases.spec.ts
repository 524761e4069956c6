import {caseTable} from '../support/cases.js';
import type {Case} from '../support/cases.js';
import {sample, specCases} from '../support/specs.js';

/** Products of f16 are capped in a way of their own, which must not lose a NaN. */
const capsNaN = ({softcap, values, headSize}: Case): boolean =>
  softcap !== undefined && values === 'nan' && headSize === 20;

/** Compiling takes lavapipe a minute a case, several for large heads; the whole table takes hours. GPUs run it. */
const isSmall = ({headSize, valueSize}: Case): boolean => Math.max(headSize, valueSize) <= 24;
const small = caseTable().filter(isSmall);

const cases = process.env.WHOLE_TABLE ?
  caseTable() :
  [...new Set([...sample(small, 20), ...small.filter(capsNaN).slice(0, 1)])];

describe('the WGSL kernels over subgroup matrices', () => {
  specCases(cases, () => 'webgpu', ['matrix']);
});

/** Heads that two subgroups share, and that the sample does not have. */
const isShared = ({headSize, valueSize}: Case): boolean => headSize === 80 && valueSize === 80;

/**
 * Lavapipe (Mesa 26.1) crashes in dK and dV of the float32 kernels, `simt` as well, where a tile has no key of its
 * sequence. SwiftShader and GPUs run these cases.
 */
const hasAllKeys = ({lengths}: Case): boolean => lengths !== 'key' && lengths !== 'both';

const splitCases = (process.env.WHOLE_TABLE ?
  caseTable() :
  [...sample(small, 40), ...caseTable().filter(isShared).slice(0, 1)]).filter(hasAllKeys);

describe('the WGSL kernels over subgroup matrices of split operands, in float32', () => {
  specCases(splitCases, () => 'webgpu', ['matrix_split']);
});
