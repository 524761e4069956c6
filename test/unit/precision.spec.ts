import {roundToFloat16} from '../support/precision.js';

describe('rounding to float16', () => {
  it('keeps what float16 holds', () => {
    for (const x of [0, -0, 1, -1.5, 65504, 2 ** -14, 2 ** -24, 1023 * 2 ** -24, 1 + 2 ** -10, Infinity, -Infinity]) {
      expect(Object.is(roundToFloat16(x), x)).withContext(String(x)).toBeTrue();
    }
    expect(roundToFloat16(NaN)).toBeNaN();
  });

  it('goes to the nearest, and from the middle to the even', () => {
    expect(roundToFloat16(1 + 2 ** -12)).toBe(1);
    expect(roundToFloat16(1 + 2 ** -11)).toBe(1);
    expect(roundToFloat16(1 + 3 * 2 ** -11)).toBe(1 + 2 ** -9);
    expect(roundToFloat16(-(1 + 3 * 2 ** -12))).toBe(-(1 + 2 ** -10));
    expect(roundToFloat16(2 ** -25)).toBe(0);
    expect(roundToFloat16(3 * 2 ** -25)).toBe(2 ** -23);
  });

  it('ends at 65504', () => {
    expect(roundToFloat16(65519)).toBe(65504);
    expect(roundToFloat16(65520)).toBe(Infinity);
    expect(roundToFloat16(-1e6)).toBe(-Infinity);
  });
});
