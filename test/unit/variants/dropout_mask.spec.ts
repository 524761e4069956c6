import * as tf from '@tensorflow/tfjs';

import {dropoutKeepMask} from '../../../src/op/variants/dropout_mask.js';
import {philox4x32} from '../../support/philox_reference.js';
import {expectInvalid, expectNothingLeft, useBackend} from './numbers.js';

const SHAPE = {batch: 2, queryHeads: 3, queryLength: 4, keyLength: 7};

describe('dropoutKeepMask', () => {
  useBackend('cpu');

  for (const backend of ['cpu', 'wasm'] as const) {
    describe(`on ${backend}`, () => {
      useBackend(backend);

      for (const seed of [0, 7, 2 ** 53 - 1]) {
        it(`is what the generator of the paper gives, seed ${seed}`, () => {
          const expected: number[] = [];
          for (let b = 0; b < SHAPE.batch; b++) {
            for (let h = 0; h < SHAPE.queryHeads; h++) {
              for (let i = 0; i < SHAPE.queryLength; i++) {
                for (let j = 0; j < SHAPE.keyLength; j++) {
                  const word = philox4x32([Math.floor(j / 4), i, h, b], seed)[j % 4];
                  expected.push(word < Math.round(0.3 * 2 ** 32) ? 0 : 1);
                }
              }
            }
          }
          expectNothingLeft(() => {
            const mask = dropoutKeepMask(SHAPE, 0.3, seed);
            expect(mask.dtype).toBe('bool');
            expect(mask.shape).toEqual([2, 3, 4, 7]);
            expect(Array.from(mask.dataSync())).toEqual(expected);
            return mask;
          });
        });
      }
    });
  }

  for (const dropoutP of [0.05, 0.5, 0.9]) {
    it(`keeps a share of 1 − ${dropoutP}, within five standard deviations`, () => {
      const shape = {batch: 2, queryHeads: 2, queryLength: 100, keyLength: 250};
      const count = 2 * 2 * 100 * 250;
      const keep = tf.tidy(() => dropoutKeepMask(shape, dropoutP, 42).dataSync() as Uint8Array);
      const kept = keep.reduce((total, value) => total + value, 0);
      const deviation = Math.sqrt(count * dropoutP * (1 - dropoutP));
      expect(Math.abs(kept - count * (1 - dropoutP))).toBeLessThan(5 * deviation);
    });
  }

  it('keeps all without dropout, and takes empty axes', () => {
    tf.tidy(() => {
      expect(dropoutKeepMask(SHAPE, 0, 1).dataSync().every(keep => keep === 1)).toBeTrue();
      expect(dropoutKeepMask({...SHAPE, keyLength: 0}, 0.5, 1).shape).toEqual([2, 3, 4, 0]);
    });
  });

  const bad: Array<[string, unknown[], string]> = [
    ['no shape', [undefined, 0.5, 1],
     'an object with batch, queryHeads, queryLength, keyLength for the shape, received undefined'],
    ['a missing axis', [{batch: 1, queryHeads: 1, queryLength: 1}, 0.5, 1],
     'an integer of at least 0 for keyLength, received undefined'],
    ['a negative axis', [{...SHAPE, batch: -1}, 0.5, 1], 'an integer of at least 0 for batch, received -1'],
    ['half a head', [{...SHAPE, queryHeads: 0.5}, 0.5, 1], 'an integer of at least 0 for queryHeads, received 0.5'],
    ['a string', [{...SHAPE, queryLength: '4'}, 0.5, 1],
     'an integer of at least 0 for queryLength, received \'4\''],
    ['p of 1', [SHAPE, 1, 1], 'a probability in [0, 1) for dropoutP, received 1'],
    ['p below 0', [SHAPE, -0.1, 1], 'a probability in [0, 1) for dropoutP, received -0.1'],
    ['p of NaN', [SHAPE, NaN, 1], 'a probability in [0, 1) for dropoutP, received NaN'],
    ['no p', [SHAPE], 'a probability in [0, 1) for dropoutP, received undefined'],
    ['no seed', [SHAPE, 0.5], 'an integer in [0, 2^53) for seed, received undefined'],
    ['a negative seed', [SHAPE, 0.5, -1], 'an integer in [0, 2^53) for seed, received -1'],
    ['a seed of 2⁵³', [SHAPE, 0.5, 2 ** 53], 'an integer in [0, 2^53) for seed, received 9007199254740992'],
  ];
  for (const [what, given, message] of bad) {
    it(`refuses ${what}`, () => {
      expectInvalid(() => (dropoutKeepMask as (...args: unknown[]) => unknown)(...given), message);
    });
  }
});
