import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {specMalformedCalls} from '../support/malformed_calls.js';
import {nativeCalls} from '../support/native_calls.js';
import {specVariants} from '../support/variant_specs.js';

describe('variants of attention by the addon', () => {
  let before: number;

  beforeEach(() => {
    before = nativeCalls().forward;
  });

  afterEach(() => {
    expect(nativeCalls().forward).toBeGreaterThan(before);
  });

  specVariants('cpu');
  specVariants('wasm');
});

describe('a malformed call where the addon serves', () => {
  beforeAll(async () => {
    await tf.setBackend('cpu');
    nativeCalls();
  });

  specMalformedCalls();
});
