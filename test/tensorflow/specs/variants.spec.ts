import * as tf from '@tensorflow/tfjs';

import {specMalformedCalls} from '../../support/malformed_calls.js';
import {nativeCalls} from '../../support/native_calls.js';
import {specVariants} from '../../support/variant_specs.js';

describe('variants of attention by the addon', () => {
  let before: number;

  beforeEach(() => {
    before = nativeCalls().tensorflow;
  });

  afterEach(() => {
    expect(nativeCalls().tensorflow).toBeGreaterThan(before);
  });

  specVariants('tensorflow');
});

describe('a malformed call on tensorflow', () => {
  beforeAll(() => tf.setBackend('tensorflow'));

  specMalformedCalls();
});
