import * as tf from '@tensorflow/tfjs';

import {KvCache} from '../../src/index.js';

import {malformedAttention} from './malformed_attention.js';
import {malformedCache} from './malformed_cache.js';
import type {MalformedCall} from './malformed_call.js';
import {malformedHelpers} from './malformed_helpers.js';
import {malformedPacked} from './malformed_packed.js';

export const MALFORMED_CALLS: readonly MalformedCall[] =
    [...malformedAttention, ...malformedPacked, ...malformedCache, ...malformedHelpers];

const isCache = (value: unknown): value is KvCache => value instanceof KvCache;

/** Makes the arguments of a call for as long as `f` runs. */
export function withArguments(row: MalformedCall, f: (args: unknown[]) => void): void {
  tf.tidy(() => {
    const args = row.given();
    f(args);
    args.filter(isCache).forEach(cache => cache.dispose()); // no tidy does
  });
}

/** What a call may not change. `ofBackend` counts the backend's own resources. */
function counts(args: readonly unknown[], ofBackend: () => object): object {
  const {numTensors, numDataBuffers, numBytes} = tf.memory();
  const caches = args.filter(isCache).map(({lengths, pagesLeft}) => ({lengths: [...lengths], pagesLeft}));
  return {numTensors, numDataBuffers, numBytes, caches, ...ofBackend()};
}

/** Every call of the table on the current backend: its message to the letter, and nothing left behind. */
export function specMalformedCalls(ofBackend: () => object = () => ({})): void {
  for (const row of MALFORMED_CALLS) {
    it(row.what, () => {
      const outside = tf.memory().numTensors;
      withArguments(row, args => {
        const before = counts(args, ofBackend);
        expect(() => row.call(...args)).toThrowError(row.message);
        expect(counts(args, ofBackend)).toEqual(before);
      });
      expect(tf.memory().numTensors).withContext('kept beyond every scope').toBe(outside);
    });
  }
}
