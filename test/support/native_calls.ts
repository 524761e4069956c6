import {nativeReport} from '../../src/node.js';
import type {NativeCalls} from '../../src/node.js';

/** How many calls the addon ran so far. @throws where it does not load: nothing that needs it is skipped. */
export function nativeCalls(): NativeCalls {
  const {calls, problem} = nativeReport();
  if (!calls) {
    throw new Error(problem);
  }
  return calls;
}

/** Every spec of the suite must have had forward and backward calls served by the addon, all by TensorFlow or none. */
export function expectNativeCalls(through: 'host'|'tensorflow'): void {
  let before: NativeCalls;

  beforeEach(() => {
    before = nativeCalls();
  });

  afterEach(() => {
    const after = nativeCalls();
    const [forward, backward, tensorflow] =
        (['forward', 'backward', 'tensorflow'] as const).map(name => after[name] - before[name]);
    expect(forward).withContext('forward calls of the addon').toBeGreaterThan(0);
    expect(backward).withContext('backward calls of the addon').toBeGreaterThan(0);
    expect(tensorflow).withContext('calls through TensorFlow').toBe(through === 'host' ? 0 : forward + backward);
  });
}
