import {optionsOf} from '../support/case.js';
import {caseGrid, gridSample, workOf} from '../support/case_grid.js';
import {caseTable} from '../support/cases.js';

const OPTIONS = [
  'bhnd', 'grouped heads', 'Dv ≠ D', 'causal', 'top-left', 'window', 'softcap', 'ALiBi', 'bias', 'mask', 'lengths',
  'sinks', 'dropout', 'large scores', 'NaN and ∞',
];

describe('the grid of cases', () => {
  it('has thousands, each with a name of its own, and is the same every time', () => {
    const grid = caseGrid();
    expect(grid.length).toBeGreaterThan(6000);
    expect(new Set(grid.map(({name}) => name)).size).toBe(grid.length);
    expect(caseGrid()).toEqual(grid);
  });

  for (const [count, budget] of [[1300, 5e9], [200, 5e8], [40, 2e8]]) {
    it(`gives a sample of ${count} within ${budget} multiply-adds that makes use of every option`, () => {
      const chosen = gridSample(count, budget);
      expect(gridSample(count, budget)).toEqual(chosen);
      expect(new Set(chosen.map(({name}) => name)).size).toBe(count);
      expect(chosen.reduce((sum, c) => sum + workOf(c), 0)).toBeLessThanOrEqual(budget);
      for (const option of OPTIONS) {
        const uses = chosen.filter(c => optionsOf(c).includes(option)).length;
        expect(uses).withContext(option).toBeGreaterThan(count / 20);
      }
    });
  }

  it('says so when a budget cannot hold the cases', () => {
    expect(() => gridSample(1300, 1e6)).toThrowError(/has no 1300 cases/);
  });
});

describe('the case table', () => {
  it('names each case differently, and makes use of every option', () => {
    const table = caseTable();
    expect(new Set(table.map(({name}) => name)).size).toBe(table.length);
    const used = new Set(table.flatMap(optionsOf));
    expect([...used].sort()).toEqual([...OPTIONS].sort());
  });
});
