import '@tensorflow/tfjs-backend-wasm';

import {setNativeDevice} from '../../src/node.js';
import {caseTable} from '../support/cases.js';
import {expectNativeCalls, nativeCalls} from '../support/native_calls.js';
import {sample, specCases} from '../support/specs.js';
import {specVariants} from '../support/variant_specs.js';

/** Every call of a spec must have been one of the device's. */
function expectOnDevice() {
  let before: ReturnType<typeof nativeCalls>;

  beforeAll(() => setNativeDevice('cuda'));
  beforeEach(() => {
    before = nativeCalls();
  });
  afterEach(() => {
    const after = nativeCalls();
    const on = (name: keyof typeof after) => after[name] - before[name];
    expect(on('cuda')).toBeGreaterThan(0);
    // Calls without a result need no device.
    expect(on('cuda')).toBeLessThanOrEqual(on('forward') + on('backward'));
    expect(on('inPlaceOfCuda')).toBe(0);
  });
  afterAll(() => setNativeDevice('cpu'));
}

describe('the addon on a CUDA device from cpu', () => {
  expectOnDevice();
  expectNativeCalls('host');
  specCases(caseTable(), () => 'cpu');
});

describe('the addon on a CUDA device from wasm', () => {
  expectOnDevice();
  specCases(sample(caseTable(), 5), () => 'wasm');
});

describe('variants of attention on a CUDA device', () => {
  expectOnDevice();
  specVariants('cpu');
});
