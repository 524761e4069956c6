import * as tf from '@tensorflow/tfjs';

import {MALFORMED_CALLS, specMalformedCalls, withArguments} from '../support/malformed_calls.js';

/** What a call is given, as text. */
function text(value: unknown): string {
  if (value instanceof tf.Tensor) {
    return `${value.isDisposed ? 'disposed ' : ''}${value.dtype} [${value.shape}]`;
  }
  if (typeof value === 'object' && value !== null) {
    return `${value.constructor.name} {${Object.entries(value).map(([name, entry]) => `${name}: ${text(entry)}`)}}`;
  }
  return typeof value === 'string' ? `'${value}'` : String(value);
}

describe('a malformed call on cpu', () => {
  beforeAll(() => tf.setBackend('cpu'));

  specMalformedCalls();
});

describe('the table of malformed calls', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('has at least 100 rows, of which no two are the same', () => {
    expect(MALFORMED_CALLS.length).toBeGreaterThanOrEqual(100);
    const names = new Set<string>();
    const calls = new Set<string>();
    for (const row of MALFORMED_CALLS) {
      expect(names).not.toContain(row.what);
      names.add(row.what);
      withArguments(row, args => {
        const call = `${row.what.split(':')[0]}(${args.map(text)}) ${row.message}`;
        expect(calls).not.toContain(call);
        calls.add(call);
      });
    }
  });

  it('is in the words of every error: what was expected, for which name, and what was received', () => {
    for (const {what, message} of MALFORMED_CALLS) {
      expect(message).withContext(what).toMatch(/^flashAttention: expected .+ for .+, received .+$/);
    }
  });
});
