import {casesOf, nameOf, namesIn, peakMebibytes, teraflops} from './figures_data.js';
import type {FigurePass} from './figures_data.js';
import type {AttentionRow, DecodeRow, HostRow, TrainingRow} from './results.js';

/** A table for people: text in every cell, numbers to the right. */
export interface Table {
  header: string[];
  rows: string[][];
}

/** Standard attention, where a column's heading has to be short. */
const SHORT: Record<string, string> = {'matMul, softmax, matMul': 'unfused'};
export const short = (name: string): string =>
    SHORT[name] ?? name.replace('matMul, softmax, matMul', 'unfused').replace(/^flashAttention (on )?/, '');

const number = (x: number|undefined, digits = 1) => x === undefined ? '—' : x.toFixed(digits);
/** At least two digits that say something: an emulation makes thousandths. */
const speed = (x: number|undefined, digits = 1) => x !== undefined && x < 1 ? x.toPrecision(2) : number(x, digits);

/** One line a shape: TFLOP/s of all that computed it, and peak memory. */
export function attentionTable(rows: readonly AttentionRow[]): Table {
  const cases = casesOf(rows);
  const measured = (pass: FigurePass) => namesIn(rows).filter(
      name => cases.some(one => teraflops(one, name, pass) !== undefined));
  const [forward, backward] = [measured('forward'), measured('backward')];
  const peaks = namesIn(rows).filter(name => cases.some(one => peakMebibytes(one, name) !== undefined));
  // The heading of a group stands with its first column.
  const group = (title: string, names: readonly string[]) =>
      names.map((name, n) => n === 0 ? `${title}: ${short(name)}` : short(name));
  return {
    header: [
      'B', 'H', 'N', 'D', 'causal', ...group('forward', forward), ...group('backward', backward),
      ...group('peak MiB', peaks),
    ],
    rows: cases.map(one => [
      ...[one.shape.batch, one.shape.heads, one.shape.length, one.shape.headSize].map(String),
      one.shape.causal ? 'yes' : '',
      ...forward.map(name => speed(teraflops(one, name, 'forward'))),
      ...backward.map(name => speed(teraflops(one, name, 'backward'))),
      ...peaks.map(name => number(peakMebibytes(one, name), 0)),
    ]),
  };
}

/** One line a length of the cache. Splits that were asked for are for the notes. */
export function decodeTable(rows: readonly DecodeRow[]): Table {
  const copy = rows.find(({kind}) => kind === 'copy')?.gigabytesPerSecond;
  return {
    header: ['keys', 'key heads', 'computed in', 'ms', 'GPU ms', 'GB/s', 'of a copy', 'unfused ms', 'times'],
    rows: rows.filter(({kind, numSplits}) => kind === 'flash' && numSplits === 0).map(row => {
      const standard = rows.find(
          ({kind, keys, keyHeads}) => kind === 'standard' && keys === row.keys && keyHeads === row.keyHeads);
      return [
        String(row.keys), String(row.keyHeads), short(nameOf(row)), number(row.medianMs, 3), number(row.gpuMs, 3),
        speed(row.gigabytesPerSecond, 0),
        copy === undefined ? '—' : `${(100 * row.gigabytesPerSecond / copy).toFixed(0)}%`,
        number(standard?.medianMs, 3), number(standard && standard.medianMs / row.medianMs),
      ];
    }),
  };
}

export function hostTable(rows: readonly HostRow[]): Table {
  return {
    header: ['call', 'pass', 'µs', 'µs at least', 'heap bytes left'],
    rows: rows.map(row => [
      nameOf(row), row.pass, number(row.medianMicroseconds), number(row.leastMicroseconds),
      number(row.heapBytesPerCall, 0),
    ]),
  };
}

export function trainingTable(rows: readonly TrainingRow[]): Table {
  return {
    header: ['attention', 'context', 'width', 'layers', 'batch', 'tokens/s', 'ms a step', 'peak MiB'],
    rows: rows.map(row => [
      nameOf(row), ...[row.context, row.width, row.layers, row.batch].map(String), number(row.tokensPerSecond, 0),
      number(row.medianMs), number(row.peakBytes / 2 ** 20, 0),
    ]),
  };
}
