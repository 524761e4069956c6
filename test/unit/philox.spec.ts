import {dropoutThreshold, philox4x32, philoxKey} from '../../src/op/philox.js';
import type {Words4} from '../../src/op/philox.js';
import {philox4x32 as philoxReference} from '../support/philox_reference.js';
import {Random} from '../support/random.js';

describe('Philox4x32-10', () => {
  // The known answers published with Random123 (Salmon et al.).
  const known: Array<{counter: Words4, key: [number, number], words: Words4}> = [
    {counter: [0, 0, 0, 0], key: [0, 0], words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]},
    {
      counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      key: [0xffffffff, 0xffffffff],
      words: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    },
    {
      counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      key: [0xa4093822, 0x299f31d0],
      words: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    },
  ];
  for (const {counter, key, words} of known) {
    it(`gives the published answer for the counter ${counter.map(c => c.toString(16))}`, () => {
      expect(philox4x32(counter, key)).toEqual(words);
    });
  }

  it('agrees with the BigInt version', () => {
    const random = new Random(3);
    for (let n = 0; n < 200; n++) {
      const counter = [0, 0, 0, 0].map(() => random.integer(2 ** 32)) as Words4;
      const seed = Math.floor(random.uniform() * 2 ** 53);
      expect(philox4x32(counter, philoxKey(seed))).toEqual(philoxReference(counter, seed) as Words4);
    }
  });

  it('turns a probability into a threshold', () => {
    expect(dropoutThreshold(0)).toBe(0);
    expect(dropoutThreshold(0.5)).toBe(2 ** 31);
    expect(dropoutThreshold(1 - 2 ** -40)).toBe(2 ** 32 - 1);
  });
});
