import '@tensorflow/tfjs';

import {caseTable} from '../../support/cases.js';
import {expectNativeCalls} from '../../support/native_calls.js';
import {specCases} from '../../support/specs.js';

describe('the addon on tensorflow', () => {
  expectNativeCalls('tensorflow');
  specCases(caseTable(), () => 'tensorflow');
});
