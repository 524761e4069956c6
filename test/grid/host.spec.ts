import {caseGrid, gridSample} from '../support/case_grid.js';
import {specCases} from '../support/specs.js';

/** `npm test` takes a fixed sample, `npm run test:full` all of the grid. */
const cases = process.env.TEST_FULL ? caseGrid() : gridSample(900, 5e9);

describe('the TypeScript kernel on the grid', () => {
  specCases(cases, () => 'cpu');
});
