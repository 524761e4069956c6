import {alibiSlopes, alibiSlopeValues} from '../../../src/op/variants/alibi_slopes.js';
import {expectClose, expectInvalid, expectNothingLeft, useBackend} from './numbers.js';

/** The authors' code (github.com/ofirpress/attention_with_linear_biases, get_slopes), line by line. */
function authorsSlopes(n: number): number[] {
  const powerOfTwo = (count: number) => {
    const start = 2 ** -(2 ** -(Math.log2(count) - 3));
    return Array.from({length: count}, (_, i) => start * start ** i);
  };
  if (Number.isInteger(Math.log2(n))) {
    return powerOfTwo(n);
  }
  const closest = 2 ** Math.floor(Math.log2(n));
  const more = authorsSlopes(2 * closest).filter((_, i) => i % 2 === 0);
  return [...powerOfTwo(closest), ...more.slice(0, n - closest)];
}

describe('alibiSlopes', () => {
  it('are those of the paper for 8 and 16 heads', () => {
    expect(alibiSlopeValues(8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map(i => 2 ** -i));
    expect(alibiSlopeValues(16).slice(0, 3)).toEqual([2 ** -0.5, 2 ** -1, 2 ** -1.5]);
  });

  it('are those of the authors\' code for any number of heads', () => {
    for (let heads = 1; heads <= 130; heads++) {
      expectClose(alibiSlopeValues(heads), authorsSlopes(heads), 1e-13);
    }
  });

  for (const backend of ['cpu', 'wasm'] as const) {
    describe(`on ${backend}`, () => {
      useBackend(backend);

      it('are a float32 tensor', () => {
        expectNothingLeft(() => {
          const slopes = alibiSlopes(12);
          expect(slopes.shape).toEqual([12]);
          expect(slopes.dtype).toBe('float32');
          expect(slopes.dataSync()).toEqual(Float32Array.from(alibiSlopeValues(12)));
          return slopes;
        });
      });
    });
  }

  for (const [heads, received] of [
    [0, '0'], [-1, '-1'], [1.5, '1.5'], [NaN, 'NaN'], [Infinity, 'Infinity'], ['8', '\'8\''], [undefined, 'undefined'],
  ] as const) {
    it(`refuse ${received} heads`, () => {
      const message = `an integer of at least 1 for heads, received ${received}`;
      expectInvalid(() => alibiSlopes(heads as number), message);
      expectInvalid(() => alibiSlopeValues(heads as number), message);
    });
  }
});
