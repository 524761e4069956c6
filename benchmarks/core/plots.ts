import type {TopLevelSpec} from 'vega-lite';

import {toSvg} from '../../examples/gpt/svg.js';

import type {CpuSpeed} from './cpu_tables.js';
import {casesOf, nameOf, namesIn, peakMebibytes, teraflops} from './figures_data.js';
import type {AttentionCase, FigurePass} from './figures_data.js';
import type {AttentionRow, DecodeRow} from './results.js';

const [WIDTH, HEIGHT] = [300, 200];
export const PLOT_SIZE = {width: WIDTH, height: HEIGHT};
const COLOURS: Record<string, string> = {
  'flashAttention float32': '#1f77b4', 'flashAttention float16': '#17becf', 'matMul, softmax, matMul': '#d62728',
  'flashAttention on tensorflow': '#1f77b4', 'flashAttention on cpu': '#17becf', 'PyTorch': '#ff7f0e',
  'matMul, softmax, matMul on tensorflow': '#d62728',
  'onnxruntime float32': '#7f7f7f', 'onnxruntime float16': '#ff7f0e',
};
/** Of forced plans. */
const MORE_COLOURS = ['#2ca02c', '#9467bd', '#8c564b', '#e377c2', '#bcbd22'];

function colourScale(names: readonly string[]) {
  const others = names.filter(name => !(name in COLOURS));
  return {
    domain: [...names],
    range: names.map(name => COLOURS[name] ?? MORE_COLOURS[others.indexOf(name) % MORE_COLOURS.length]),
  };
}

/** Names would be cut off otherwise. */
const LEGEND = {labelLimit: 400};
export const LEGEND_ABOVE = {...LEGEND, orient: 'top', columns: 3};

export const lengthAxis = (title: string, lengths: readonly number[]) => ({
  type: 'quantitative', title, scale: {type: 'log', base: 2},
  axis: {values: [...new Set(lengths)].sort((a, b) => a - b), labelOverlap: true, format: 'd'},
} as const);

const bySize = {
  field: 'headSize', type: 'nominal', title: null, sort: ['D = 64', 'D = 128'],
} as const;

/** Cases without a mask: plots show one line a computation. */
function unmasked(rows: readonly AttentionRow[], isWanted: (row: AttentionRow) => boolean): AttentionCase[] {
  return casesOf(rows.filter(row => !row.causal && isWanted(row)));
}

/** Speed against length at one number of tokens; undefined where no such was measured. */
export async function speedPlot(rows: readonly AttentionRow[]): Promise<string|undefined> {
  const cases = unmasked(rows, ({series}) => series === 'sweep');
  const names = namesIn(cases.flatMap(one => one.rows));
  const passes: readonly FigurePass[] = ['forward', 'backward'];
  const values = cases.flatMap(one => names.flatMap(name => passes.flatMap(pass => {
    const value = teraflops(one, name, pass);
    return value === undefined ? [] :
                                 [{length: one.shape.length, headSize: `D = ${one.shape.headSize}`, name, pass, value}];
  })));
  if (values.length === 0) {
    return undefined;
  }
  return toSvg({
    data: {values},
    background: 'white',
    facet: {column: bySize, row: {field: 'pass', type: 'nominal', title: null, sort: [...passes]}},
    spec: {
      width: WIDTH, height: HEIGHT,
      mark: {type: 'line', point: true, strokeWidth: 2},
      encoding: {
        x: {field: 'length', ...lengthAxis('sequence length N', values.map(({length}) => length))},
        y: {field: 'value', type: 'quantitative', title: 'TFLOP/s', scale: {zero: true}},
        color: {field: 'name', type: 'nominal', title: null, scale: colourScale(names), legend: LEGEND_ABOVE},
      },
    },
  } as TopLevelSpec);
}

/** Bars side by side for each shape; undefined where there is none. */
export async function cpuSpeedPlot(values: readonly CpuSpeed[]): Promise<string|undefined> {
  if (values.length === 0) {
    return undefined;
  }
  const names = [...new Set(values.map(({name}) => name))];
  return toSvg({
    data: {values: [...values]},
    background: 'white',
    facet: {row: {field: 'pass', type: 'nominal', title: null, sort: ['forward', 'backward']}},
    spec: {
      width: 2 * WIDTH, height: HEIGHT,
      mark: {type: 'bar'},
      encoding: {
        x: {
          field: 'shape', type: 'nominal', title: null, sort: [...new Set(values.map(({shape}) => shape))],
          axis: {labelAngle: -30, labelLimit: 400},
        },
        xOffset: {field: 'name', sort: names},
        y: {field: 'gigaflops', type: 'quantitative', title: 'GFLOP/s', scale: {zero: true}},
        color: {field: 'name', type: 'nominal', title: null, scale: colourScale(names), legend: LEGEND_ABOVE},
      },
    },
  } as TopLevelSpec);
}

/** Peak memory of forward and backward against length, of one sequence where that was measured. */
export async function memoryPlot(rows: readonly AttentionRow[]): Promise<string|undefined> {
  const heads = rows.find(({series}) => series === 'one sequence')?.heads;
  const cases = unmasked(rows, row => heads === undefined ? row.series === 'sweep' :
                                                            row.batch === 1 && row.heads === heads);
  const names = namesIn(cases.flatMap(one => one.rows).filter(({peakBytes}) => peakBytes !== undefined));
  const values = cases.flatMap(one => names.flatMap(name => {
    const value = peakMebibytes(one, name);
    return value ? [{length: one.shape.length, headSize: `D = ${one.shape.headSize}`, name, value}] : [];
  }));
  if (values.length === 0) {
    return undefined;
  }
  return toSvg({
    data: {values},
    background: 'white',
    facet: {column: bySize},
    spec: {
      width: WIDTH, height: HEIGHT,
      mark: {type: 'line', point: true, strokeWidth: 2},
      encoding: {
        x: {field: 'length', ...lengthAxis('sequence length N', values.map(({length}) => length))},
        y: {
          field: 'value', type: 'quantitative', title: 'peak memory (MiB)', scale: {type: 'log'}, axis: {format: '~g'},
        },
        color: {field: 'name', type: 'nominal', title: null, scale: colourScale(names), legend: LEGEND_ABOVE},
      },
    },
  } as TopLevelSpec);
}

/** Bandwidth of one query against the number of cached keys, with that of a copy as a level line. */
export async function decodePlot(rows: readonly DecodeRow[]): Promise<string|undefined> {
  const attention = rows.filter(({kind, numSplits}) => kind !== 'copy' && numSplits === 0);
  if (attention.length === 0) {
    return undefined;
  }
  const names = namesIn(attention);
  const values = attention.map(row => ({
    keys: row.keys, value: row.gigabytesPerSecond, name: nameOf(row), heads: `${row.keyHeads} key heads`,
  }));
  const copies = rows.filter(({kind}) => kind === 'copy').map(({gigabytesPerSecond}) => ({value: gigabytesPerSecond}));
  return toSvg({
    width: 2 * WIDTH, height: HEIGHT,
    background: 'white',
    layer: [
      {
        data: {values},
        mark: {type: 'line', point: true, strokeWidth: 2},
        encoding: {
          x: {field: 'keys', ...lengthAxis('cached keys', values.map(({keys}) => keys))},
          y: {field: 'value', type: 'quantitative', title: 'GB/s', scale: {zero: true}},
          color: {field: 'name', type: 'nominal', title: null, scale: colourScale(names), legend: LEGEND},
          strokeDash: {field: 'heads', type: 'nominal', title: null, legend: {symbolType: 'stroke'}},
        },
      },
      {
        data: {values: copies},
        mark: {type: 'rule', strokeDash: [6, 4], color: '#333'},
        encoding: {y: {field: 'value', type: 'quantitative'}},
      },
      {
        data: {values: copies},
        mark: {type: 'text', align: 'left', baseline: 'bottom', x: 4, dy: -2, text: 'a buffer copy', color: '#333'},
        encoding: {y: {field: 'value', type: 'quantitative'}},
      },
    ],
  } as TopLevelSpec);
}
