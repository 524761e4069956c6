import {gridSample} from '../support/case_grid.js';
import {specCases} from '../support/specs.js';

/** SwiftShader compiles for seconds in each case; `npm run test:full` takes twenty times as many as `npm test`. */
const cases = process.env.TEST_FULL ? gridSample(1200, 4e9) : gridSample(60, 1.5e8);

describe('the WGSL kernels on the grid', () => {
  specCases(cases, () => 'webgpu');
});
