import type {TopLevelSpec} from 'vega-lite';

import {toSvg} from '../../examples/gpt/svg.js';

import type {CudaAttentionRow} from './cuda_results.js';
import {cudaName, cudaNames} from './cuda_tables.js';
import {LEGEND_ABOVE, lengthAxis, PLOT_SIZE} from './plots.js';

const COLOURS: Record<string, string> = {
  flashAttention: '#1f77b4', 'flashAttention with conversions': '#17becf', cuDNN: '#2ca02c',
  'flashAttention deterministic: false': '#9467bd', 'flashAttention deterministic: false with conversions': '#c5b0d5',
  'FlashAttention-2': '#ff7f0e', 'memory-efficient': '#ff7f0e', unfused: '#d62728',
};

/** Speed of one compute type against length, without a mask; undefined where no such was measured. */
export async function cudaSpeedPlot(
    rows: readonly CudaAttentionRow[], computeType: string): Promise<string|undefined> {
  const shown = rows.filter(row => row.computeType === computeType && !row.causal && row.series === 'sweep');
  if (shown.length === 0) {
    return undefined;
  }
  const names = cudaNames(shown);
  const values = shown.map(row => ({
    length: row.length, headSize: `D = ${row.headSize}`, name: cudaName(row), pass: row.pass, value: row.tflops,
  }));
  return toSvg({
    data: {values},
    background: 'white',
    facet: {
      column: {field: 'headSize', type: 'nominal', title: null, sort: ['D = 64', 'D = 128']},
      row: {field: 'pass', type: 'nominal', title: null, sort: ['forward', 'backward']},
    },
    spec: {
      ...PLOT_SIZE,
      mark: {type: 'line', point: true, strokeWidth: 2},
      encoding: {
        x: {field: 'length', ...lengthAxis('sequence length N', values.map(({length}) => length))},
        y: {field: 'value', type: 'quantitative', title: 'TFLOP/s', scale: {zero: true}},
        color: {
          field: 'name', type: 'nominal', title: null, legend: LEGEND_ABOVE,
          scale: {domain: names, range: names.map(name => COLOURS[name])},
        },
      },
    },
  } as TopLevelSpec);
}
