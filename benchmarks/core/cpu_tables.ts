import {casesOf, nameOf, namesIn, teraflops} from './figures_data.js';
import type {AttentionCase, FigurePass} from './figures_data.js';
import type {AttentionKind, AttentionRow, DecodeRow, TrainingRow} from './results.js';
import {short} from './tables.js';
import type {Table} from './tables.js';

const number = (x: number|undefined, digits: number) => x === undefined ? '—' : x.toFixed(digits);
const gigaflops = (one: AttentionCase, name: string, pass: FigurePass): number|undefined => {
  const speed = teraflops(one, name, pass);
  return speed === undefined ? undefined : 1000 * speed;
};

/** One line a shape: GFLOP/s of all that computed it. */
export function cpuAttentionTable(rows: readonly AttentionRow[]): Table {
  const names = namesIn(rows);
  const group = (title: string) => names.map((name, n) => n === 0 ? `${title}: ${short(name)}` : short(name));
  return {
    header: ['H', 'N', 'D', 'causal', ...group('forward'), ...group('backward')],
    rows: casesOf(rows).map(one => [
      ...[one.shape.heads, one.shape.length, one.shape.headSize].map(String), one.shape.causal ? 'yes' : '',
      ...(['forward', 'backward'] as const).flatMap(pass => names.map(name => number(gigaflops(one, name, pass), 0))),
    ]),
  };
}

/** A plotted or compared value. */
export interface CpuSpeed {
  shape: string;
  pass: FigurePass;
  name: string;
  gigaflops: number;
}

export function cpuSpeeds(rows: readonly AttentionRow[]): CpuSpeed[] {
  return casesOf(rows).flatMap(one => namesIn(rows).flatMap(
      name => (['forward', 'backward'] as const).flatMap((pass): CpuSpeed[] => {
        const {length, headSize, causal} = one.shape;
        const value = gigaflops(one, name, pass);
        const shape = `N ${length}, D ${headSize}${causal ? ', causal' : ''}`;
        return value === undefined ? [] : [{shape, pass, name, gigaflops: value}];
      })));
}

/** How many times as fast as another kind this package was, least and most over the shapes; undefined without any. */
export function timesAsFast(
    rows: readonly AttentionRow[], backend: string, other: AttentionKind,
    pass: FigurePass): [number, number]|undefined {
  const ratios = casesOf(rows).flatMap(one => {
    const speed = (kind: AttentionKind) => {
      const row = one.rows.find(r => r.kind === kind && (kind !== 'flash' || r.backend === backend));
      return row && teraflops(one, nameOf(row), pass);
    };
    const [own, theirs] = [speed('flash'), speed(other)];
    return own === undefined || theirs === undefined ? [] : [own / theirs];
  });
  return ratios.length === 0 ? undefined : [Math.min(...ratios), Math.max(...ratios)];
}

/** The fastest plain read of k and v of this length. */
export function fastestRead(rows: readonly DecodeRow[], keys: number): DecodeRow|undefined {
  return rows.filter(row => row.kind === 'read' && row.keys === keys)
      .sort((a, b) => b.gigabytesPerSecond - a.gigabytesPerSecond)[0];
}

/** One line each that attended or read. */
export function cpuDecodeTable(rows: readonly DecodeRow[]): Table {
  return {
    header: ['computed by', 'layout', 'keys', 'ms', '± %', 'GB/s', 'of the fastest read'],
    rows: rows.map(row => {
      const read = fastestRead(rows, row.keys);
      return [
        `${nameOf(row)}${row.how ? ` (${row.how})` : ''}`, row.kind === 'read' ? '' : row.layout ?? 'bnhd',
        String(row.keys), number(row.medianMs, 2), number(100 * row.spread, 0), number(row.gigabytesPerSecond, 1),
        read ? `${(100 * row.gigabytesPerSecond / read.gigabytesPerSecond).toFixed(0)}%` : '—',
      ];
    }),
  };
}

/** One line a model: the median step of each that trained it. */
export function cpuTrainingTable(rows: readonly TrainingRow[]): Table {
  const names = namesIn(rows);
  const contexts = [...new Set(rows.map(({context}) => context))];
  return {
    header: ['context', ...names.map((name, n) => `${n === 0 ? 'ms a step: ' : ''}${name}`)],
    rows: contexts.map(context => [
      String(context),
      ...names.map(name => number(rows.find(row => row.context === context && nameOf(row) === name)?.medianMs, 0)),
    ]),
  };
}
