import {readFileSync} from 'node:fs';

import * as tf from '@tensorflow/tfjs';

import {MIGRATION_EXAMPLES} from '../support/migration_examples.js';
import {migrationInputs} from '../support/migration_inputs.js';
import type {MigrationInputs} from '../support/migration_inputs.js';
import {philox4x32} from '../support/philox_reference.js';
import {plainAttention, plainRotary, plainVarlen} from '../support/plain_attention.js';
import type {Rows, Rule} from '../support/plain_attention.js';

const TOLERANCE = 1e-5;

/** Numbers nested as deep as the tensor they are compared with; flat ones are taken in order. */
type Nested = number|readonly Nested[];
type Expectation = (inputs: MigrationInputs) => readonly Nested[];

const range = (count: number) => Array.from({length: count}, (_, n) => n);
const rows = (t: tf.Tensor4D): Rows => t.arraySync();

/** [B][N][H] as [B][H][N], whatever the elements are. */
const swapped = <T>(x: T[][][]): T[][][] => x.map(a => a[0].map((_, h) => a.map(b => b[h])));

const bottomRight = (queries: number, keys: number): Rule => ({sees: (i, j) => j <= i + keys - queries});
const topLeft: Rule = {sees: (i, j) => j <= i};
const near = (left: number, right: number, offset: number): Rule =>
    ({sees: (i, j) => j >= i + offset - left && j <= i + offset + right});

const keeps = (b: number, h: number, i: number, j: number) =>
    philox4x32([Math.floor(j / 4), i, h, b], 7)[j % 4] >= 0.25 * 2 ** 32;

function biased({bias}: MigrationInputs): Rule {
  const values = bias.arraySync();
  return {score: (s, _b, h, i, j) => s + values[0][h][i][j]};
}

function alibi({slopes}: MigrationInputs, offset: number): Rule['score'] {
  const values = slopes.arraySync();
  return (s, _b, h, i, j) => s - values[h] * Math.abs(i + offset - j);
}

/** Output of q, k and v under a rule; Nq 3, Nk 5. */
const plain = (rule: (inputs: MigrationInputs) => Rule): Expectation => inputs =>
    [plainAttention(rows(inputs.q), rows(inputs.k), rows(inputs.v), rule(inputs)).output];

const outputAndLse: Expectation = ({q, k, v}) => {
  const {output, lse} = plainAttention(rows(q), rows(k), rows(v));
  return [output, lse];
};

/** The same, heads first. */
const headsFirst = (expected: Expectation): Expectation => inputs => {
  const [output, ...rest] = expected(inputs);
  return [swapped(output as Rows), ...rest];
};

const varlen = (rule?: (queries: number, keys: number) => Rule): Expectation =>
    ({rowsQ, rowsK, rowsV, cuSeqlensQ, cuSeqlensK}) => [plainVarlen(
        rowsQ.arraySync(), rowsK.arraySync(), rowsV.arraySync(), cuSeqlensQ, cuSeqlensK, rule).output];

/** Output over the first `ends[b]` rows of the cache. */
const overCache = (ends: readonly number[], rule: Rule = {}): Expectation => ({q, kCache, vCache}) =>
    [plainAttention(rows(q), rows(kCache), rows(vCache),
        {...rule, sees: (i, j, b, h) => j < ends[b] && (rule.sees?.(i, j, b, h) ?? true)}).output];

/** A cache with rows written from `at[b]` on. */
const appended = (cache: Rows, added: Rows, at: readonly number[]): Rows => cache.map(
    (all, b) => all.map((row, n) => added[b][n - at[b]] ?? row));

/** Output and keys of the cache where two rows lay, and q and three new ones are turned and appended. */
const turnedCache = (interleaved: boolean, causal: boolean): Expectation =>
    ({q, newK, newV, kCache, vCache, cos, sin}) => {
      const turn = (x: tf.Tensor4D, advancing: boolean) => plainRotary(
          rows(x), cos.arraySync(), sin.arraySync(), (_b, n) => advancing ? 2 + n : 2, interleaved);
      const keys = appended(rows(kCache), turn(newK, true), [2, 2]);
      const values = appended(rows(vCache), rows(newV), [2, 2]);
      const sees = (i: number, j: number) => j < 5 && (!causal || j <= i + 2);
      return [plainAttention(turn(q, causal), keys, values, {sees}).output, keys];
    };

const triangular = headsFirst(plain(() => topLeft));
const dropout = plain(() => ({kept: (...pair) => keeps(...pair) ? 1 / 0.75 : 0}));
const scaled = plain(() => ({scale: 0.2}));

const EXPECTED: Record<string, Expectation> = {
  'fa-func': plain(() => ({})),
  'fa-dropout': dropout,
  'fa-scale': scaled,
  'fa-causal': plain(() => bottomRight(3, 5)),
  'fa-window': plain(() => near(2, 0, 2)),
  'fa-softcap': plain(() => ({score: s => 5 * Math.tanh(s / 5)})),
  'fa-alibi': plain(inputs => ({...bottomRight(3, 5), score: alibi(inputs, 2)})),
  // 8 heads by the rule, and every other slope of 16 for the four that remain.
  'fa-alibi-slopes': () => [[1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5].map(step => 2 ** -step)],
  'fa-deterministic': plain(() => ({})),
  'fa-dtype': plain(() => ({})),
  'fa-lse': outputAndLse,
  'fa-empty-row': ({q, fewK, fewV}) => {
    const {output, lse} = plainAttention(rows(q), rows(fewK), rows(fewV), bottomRight(3, 2));
    expect(output.map(([first]) => first.flat())).toEqual([new Array(24).fill(0), new Array(24).fill(0)]);
    expect(lse.flatMap(heads => heads.map(([first]) => first))).toEqual(new Array(8).fill(-Infinity));
    return [output, lse];
  },
  'fa-keep-mask': () => [range(2).map(b => range(4).map(h => range(3).map(i => range(5).map(
      j => Number(keeps(b, h, i, j))))))],
  'fa-qkv': ({qkv}) => {
    const [q, k, v] = tf.unstack(qkv, 2).map(part => rows(part as tf.Tensor4D));
    return [plainAttention(q, k, v, bottomRight(5, 5)).output];
  },
  'fa-kv': ({q, kv}) => {
    const [k, v] = tf.unstack(kv, 2).map(part => rows(part as tf.Tensor4D));
    return [plainAttention(rows(q), k, v, bottomRight(3, 5)).output];
  },
  'fa-varlen': varlen(bottomRight),
  'fa-varlen-lse': ({rowsQ, rowsK, rowsV, cuSeqlensQ, cuSeqlensK}) => {
    const {output, lse} =
        plainVarlen(rowsQ.arraySync(), rowsK.arraySync(), rowsV.arraySync(), cuSeqlensQ, cuSeqlensK);
    return [output, lse];
  },
  'fa-varlen-qkv': ({rowsQkv, cuSeqlensQ}) => {
    const [q, k, v] = tf.unstack(rowsQkv, 1).map(part => (part as tf.Tensor3D).arraySync());
    return [plainVarlen(q, k, v, cuSeqlensQ, cuSeqlensQ).output];
  },
  'fa-varlen-kv': ({rowsQ, rowsKv, cuSeqlensQ, cuSeqlensK}) => {
    const [k, v] = tf.unstack(rowsKv, 1).map(part => (part as tf.Tensor3D).arraySync());
    return [plainVarlen(rowsQ.arraySync(), k, v, cuSeqlensQ, cuSeqlensK).output];
  },
  'fa-cache': overCache([4, 6]),
  'fa-cache-append': ({q, newK, newV, kCache, vCache}) => {
    const [keys, values] =
        [appended(rows(kCache), rows(newK), [1, 3]), appended(rows(vCache), rows(newV), [1, 3])];
    const sees = (i: number, j: number, b: number) => j <= i + [1, 3][b];
    return [plainAttention(rows(q), keys, values, {sees}).output, keys, values];
  },
  'fa-cache-rotary': turnedCache(true, true),
  'fa-cache-neox': turnedCache(false, false),
  'fa-cache-batch': ({q, pagesK, pagesV}) => {
    const picked = (cache: tf.Tensor4D) => [3, 1].map(b => rows(cache)[b]);
    return [plainAttention(rows(q), picked(pagesK), picked(pagesV)).output];
  },
  'fa-cache-left-pad': overCache([5, 5], {sees: (_i, j, b) => j >= [2, 0][b]}),
  'fa-cache-pages': ({q, pagesK, pagesV}) => {
    const unpaged = (cache: tf.Tensor4D) => [[2, 0], [1, 3]].map(table => table.flatMap(page => rows(cache)[page]));
    const sees = (_i: number, j: number, b: number) => j < [5, 6][b];
    return [plainAttention(rows(q), unpaged(pagesK), unpaged(pagesV), {sees}).output];
  },
  'fa-cache-scores': inputs => {
    const slopes = alibi(inputs, 3)!;
    return overCache([6, 6], {
      ...near(3, 0, 3), scale: 0.2, score: (s, ...pair) => slopes(5 * Math.tanh(s / 5), ...pair),
    })(inputs);
  },
  'fa-cache-splits': overCache([6, 6]),
  'fa-cache-lse': ({q, kCache, vCache}) => {
    const sees = (_i: number, j: number, b: number) => j < [4, 6][b];
    const {output, lse} = plainAttention(rows(q), rows(kCache), rows(vCache), {sees});
    return [output, lse];
  },
  'fa-cache-object': ({q, newK, newV}) =>
      [plainAttention(rows(q), rows(newK), rows(newV), bottomRight(3, 3)).output],
  'fa-rotary': ({x, cos, sin}) => [plainRotary(rows(x), cos.arraySync(), sin.arraySync(), (_b, n) => n, false)],
  'fa-rotary-offsets': ({x, cos, sin}) =>
      [plainRotary(rows(x), cos.arraySync(), sin.arraySync(), (b, n) => [2, 0][b] + n, true)],
  'fa-unpad': ({x}) => {
    const [first, second] = rows(x);
    return [[first[0], first[2], second[2]], [0, 2, 5], [0, 2, 3], 2];
  },
  'fa-pad': ({x, keep}) => [rows(x).map(
      (all, b) => all.map((row, n) => keep[b][n] ? row : row.map(head => head.map(() => 0))))],

  'xf-func': plain(() => ({})),
  'xf-rank-3': ({flatQ, flatK, flatV}) => {
    const [q, k, v] = [flatQ, flatK, flatV].map(t => t.arraySync().map(sequence => sequence.map(row => [row])));
    return [plainAttention(q, k, v).output];
  },
  'xf-p': dropout,
  'xf-scale': scaled,
  'xf-lower-triangular': plain(() => topLeft),
  'xf-bottom-right': plain(() => bottomRight(3, 5)),
  'xf-triangular-bias': plain(inputs => ({...topLeft, ...biased(inputs)})),
  'xf-local': plain(() => near(1, 1, 2)),
  'xf-local-causal': plain(() => near(1, 0, 2)),
  'xf-bias': plain(biased),
  'xf-block-diagonal': varlen(),
  'xf-block-causal': varlen(() => topLeft),
  'xf-block-bottom-right': varlen(bottomRight),
  'xf-padded-keys': overCache([4, 6], {sees: (i, j, b) => j <= i + [4, 6][b] - 3}),
  'xf-lse': outputAndLse,
  'xf-merge': ({q, k, v, fewK, fewV}) => {
    const both = (a: tf.Tensor4D, b: tf.Tensor4D) => rows(a).map((some, n) => [...some, ...rows(b)[n]]);
    const {output, lse} = plainAttention(rows(q), both(k, fewK), both(v, fewV));
    return [output, lse];
  },

  'pt-func': headsFirst(plain(() => ({}))),
  'pt-mask': headsFirst(plain(({mask}) => {
    const seen = mask.arraySync();
    return {sees: (i, j, b) => Boolean(seen[b][0][i][j])};
  })),
  'pt-bias': headsFirst(plain(biased)),
  'pt-dropout': headsFirst(dropout),
  'pt-causal': triangular,
  'pt-scale': headsFirst(scaled),
  'pt-gqa': inputs => [...headsFirst(plain(() => ({})))(inputs), 2],
  'pt-upper-left': triangular,
  'pt-lower-right': headsFirst(({q, fewK, fewV}) =>
    [plainAttention(rows(q), rows(fewK), rows(fewV), bottomRight(3, 2)).output]),
  'pt-lse': headsFirst(outputAndLse),
  'pt-nested': varlen(),
};

const flat = (value: Nested): number[] => typeof value === 'number' ? [value] : value.flatMap(flat);
const bare = (code: string) => code.replace(/\s+/g, '');

const url = (path: string) => new URL(`../../${path}`, import.meta.url);
const DOCUMENT = readFileSync(url('docs/MIGRATION.md'), 'utf8');

/** Rows of all tables but their heads: the cells between the bars. */
const TABLE_ROWS = DOCUMENT.split('\n').filter((line, place, lines) =>
  line.startsWith('|') && !/^\|[-|: ]+\|$/.test(line) && !/^\|[-|: ]+\|$/.test(lines[place + 1] ?? ''))
    .map(line => line.slice(1, line.lastIndexOf('|')).split(/ \| /).map(cell => cell.trim()));
const idOf = (cells: readonly string[]) => /<!-- example: ([\w-]+) -->/.exec(cells.join(' '))?.[1];

/** Source of each example, by its id. */
const SOURCES = new Map(readFileSync(url('test/support/migration_examples.ts'), 'utf8').split(/\n(?= {2}'[\w-]+': )/)
    .slice(1).map(text => [/'([\w-]+)'/.exec(text)![1], bare(text)]));

describe('docs/MIGRATION.md', () => {
  beforeAll(() => tf.setBackend('cpu'));

  it('has three cells and the id of an example in every row of its tables', () => {
    for (const cells of TABLE_ROWS) {
      expect(cells.length).withContext(cells[0]).toBe(3);
      expect(idOf(cells)).withContext(cells[0]).toBeDefined();
    }
  });

  it('has a row for every example, an example for every row, and an expectation for both', () => {
    const ids = TABLE_ROWS.map(idOf).filter(id => id !== 'none').sort();
    expect(ids).toEqual(Object.keys(MIGRATION_EXAMPLES).sort());
    expect(ids).toEqual(Object.keys(EXPECTED).sort());
  });

  it('shows the code of its examples', () => {
    for (const cells of TABLE_ROWS.filter(row => idOf(row) !== 'none')) {
      const id = idOf(cells)!;
      const shown = [...cells[1].matchAll(/`([^`]+)`/g)].map(([, code]) => code);
      expect(shown.length).withContext(id).toBeGreaterThan(0);
      for (const code of shown) {
        expect(SOURCES.get(id)).withContext(`${id}: ${code}`).toContain(bare(code));
      }
    }
  });

  it('gives a reason where there is no equivalent', () => {
    for (const [, ours, reason] of TABLE_ROWS.filter(row => idOf(row) === 'none')) {
      expect(ours).toMatch(/^none <!--/);
      expect(reason).not.toBe('');
    }
  });

  for (const [id, example] of Object.entries(MIGRATION_EXAMPLES)) {
    it(`gives what it says: ${id}`, () => {
      const {numTensors} = tf.memory();
      tf.tidy(() => {
        const inputs = migrationInputs();
        const expected = EXPECTED[id](inputs); // before the example, which may write into its cache
        const results = example(inputs);
        expect(results.length).toBe(expected.length);
        results.forEach((result, n) => {
          const [values, wanted] = [Array.from(result.dataSync()), flat(expected[n])];
          expect(values.length).withContext(`length of result ${n}`).toBe(wanted.length);
          const wrong = values.filter((value, place) =>
            !(value === wanted[place] || Math.abs(value - wanted[place]) <= TOLERANCE * Math.max(1, Math.abs(value))));
          expect(wrong).withContext(`result ${n}`).toEqual([]);
        });
      });
      expect(tf.memory().numTensors).toBe(numTensors);
    });
  }
});
