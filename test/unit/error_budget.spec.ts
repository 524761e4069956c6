import {compare} from '../support/error_budget.js';

describe('the error budget', () => {
  const judge = (actual: number[], reference: number[], plain: number[], specials: 'exact'|'finite' = 'exact') =>
      compare('x', actual, reference, plain, 0, specials);

  it('allows exactly twice the error of plain attention', () => {
    expect(judge([1.5], [1], [1.25]).ok).toBeTrue();
    expect(judge([1.5000001], [1], [1.25]).ok).toBeFalse();
  });

  it('takes the largest error of each, wherever they are', () => {
    expect(judge([1, 2.5], [1, 2], [1.25, 2]).ok).toBeTrue();
  });

  it('allows nothing where plain attention is exact, but for roundings of the terms', () => {
    expect(judge([1 + 2 ** -20], [1], [1]).ok).toBeFalse();
    expect(compare('x', [1 + 2 ** -22], [1], [1], 1, 'exact').ok).toBeTrue();
    expect(compare('x', [1 + 2 ** -21], [1], [1], 1, 'exact').ok).toBeFalse();
  });

  it('lets numbers below the smallest normal one be taken for 0, and no larger ones', () => {
    expect(judge([0], [2 ** -127], [2 ** -127]).ok).toBeTrue();
    expect(judge([0], [2 ** -125], [2 ** -125]).ok).toBeFalse();
  });

  it('fails on NaN and infinities that the reference does not have', () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      expect(judge([bad], [1], [100]).ok).toBeFalse();
      expect(judge([bad], [1], [bad]).ok).toBeFalse();
    }
  });

  it('fails on finite numbers where the reference has none', () => {
    for (const special of [NaN, Infinity, -Infinity]) {
      expect(judge([1], [special], [special]).ok).toBeFalse();
      expect(judge([1], [special], [special], 'finite').ok).toBeFalse();
      expect(judge([special], [special], [special]).ok).toBeTrue();
    }
  });

  it('tells NaN from the infinities when specials are exact', () => {
    expect(judge([Infinity], [-Infinity], [-Infinity]).ok).toBeFalse();
    expect(judge([NaN], [Infinity], [Infinity]).ok).toBeFalse();
    expect(judge([NaN], [Infinity], [Infinity], 'finite').ok).toBeTrue();
  });

  it('is not widened by a plain result that is not finite', () => {
    expect(judge([1.1], [1], [Infinity]).ok).toBeFalse();
  });

  it('fails on missing elements', () => {
    expect(judge([1], [1, 2], [1, 2]).ok).toBeFalse();
  });

  it('names the element in its message', () => {
    expect(judge([1, 5], [1, 2], [1, 2]).message).toContain('element 1 is 5, expected 2');
  });
});
