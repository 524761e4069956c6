import type {CudaAttentionRow, CudaDecodeRow} from '../../../benchmarks/core/cuda_results.js';
import {cudaAttentionTable, cudaDecodeTable, cudaLongTable, cudaTimesAsFast} from
  '../../../benchmarks/core/cuda_tables.js';
import {cudaAttentionSection, cudaDecodeSection} from '../../../benchmarks/cuda_figures.js';

const TIMING = {medianMs: 2000, spread: 0.1, batches: 7, runsPerBatch: 3};

function row(
    kind: CudaAttentionRow['kind'], pass: CudaAttentionRow['pass'], tflops: number,
    more: Partial<CudaAttentionRow> = {}): CudaAttentionRow {
  return {
    kind, pass, batch: 4, heads: 32, length: 4096, headSize: 64, causal: false, series: 'sweep',
    computeType: 'bfloat16', ...TIMING, tflops, share: 0.5, ...more,
  };
}

const ROWS = [
  row('cudnn', 'forward', 466.4), row('flash', 'forward', 233.2, {conversions: false}),
  row('flash', 'forward', 200, {conversions: true}), row('flash', 'backward', 99.5, {conversions: false}),
  row('flash', 'forward', 50, {conversions: false, length: 1024, causal: true}),
  row('cudnn', 'forward', 40, {length: 1024, causal: true}),
  row('flash', 'backward', 120, {conversions: false, deterministic: false}),
];
const LONG = [
  row('flash', 'forward', 300, {series: 'long', length: 2 ** 20, conversions: false}),
  row('flash', 'backward', 90, {series: 'long', length: 2 ** 20, conversions: false, peakBytes: 2 ** 30}),
  row('flash-attention-2', 'forward', 200, {series: 'long', length: 2 ** 20}),
];
const DECODE: CudaDecodeRow[] = [
  {kind: 'copy', keys: 0, queryHeads: 0, keyHeads: 0, headSize: 0, ...TIMING, medianMs: 0.2, gigabytesPerSecond: 4000},
  {
    kind: 'flash', computeType: 'float32', keys: 32768, queryHeads: 32, keyHeads: 8, headSize: 128, ...TIMING,
    medianMs: 0.1, gigabytesPerSecond: 3000,
  },
];
const ENVIRONMENT = {date: '2026-01-01', commit: 'abc', backend: 'cuda', device: 'A GPU', pytorch: '2', cudnn: '9'};

describe('figures of CUDA', () => {
  it('have a line for each shape, this package first', () => {
    expect(cudaAttentionTable(ROWS)).toEqual({
      header: [
        'N', 'D', 'causal', 'forward: flashAttention', 'with conversions', 'cuDNN', 'backward: flashAttention',
        'deterministic: false',
      ],
      rows: [
        ['1024', '64', 'yes', '50.0', '—', '40.0', '—', '—'],
        ['4096', '64', '', '233', '200', '466', '100', '120'],
      ],
    });
  });

  it('compare the kernels alone', () => {
    expect(cudaTimesAsFast(ROWS, 'cudnn', 'forward')).toEqual([0.5, 1.25]);
    expect(cudaTimesAsFast(ROWS, 'cudnn', 'backward')).toBeUndefined();
    expect(cudaTimesAsFast(ROWS, 'math', 'forward')).toBeUndefined();
  });

  it('have seconds and memory of long sequences', () => {
    expect(cudaLongTable(LONG).rows).toEqual([
      ['1048576', '64', 'flashAttention', '2.00', '2.00', '300', '90.0', '1024'],
      ['1048576', '64', 'FlashAttention-2', '2.00', '—', '200', '—', '—'],
    ]);
  });

  it('hold decoding to a copy', () => {
    expect(cudaDecodeTable(DECODE).rows).toEqual([
      ['a copy on the device', '', '200.0', '10', '4000', '100%'],
      ['flashAttention', 'float32', '100.0', '10', '3000', '75%'],
    ]);
    expect(cudaDecodeSection({environment: ENVIRONMENT, results: DECODE})).toContain(
        'one query over 32768 keys, 32 query heads, 8 key heads of 128');
  });

  it('are sections with plots, and say what is missing', async () => {
    const svgs = new Map<string, string>();
    const file = {environment: ENVIRONMENT, results: [...ROWS, ...LONG], skipped: [{label: 'one', why: 'because'}]};
    const section = await cudaAttentionSection('name', file, svgs);
    expect(section).toContain('**A GPU, CUDA**, commit abc, 2026-01-01 (PyTorch 2, cuDNN 9)');
    expect(section).toContain('Not measured: one (because).');
    expect(section).toContain('The kernels alone are 0.50–1.25 forward times as fast as cuDNN.');
    expect(section).toContain('(benchmarks/results/name-bfloat16.svg)');
    expect(section).toContain('| 1048576 |');
    expect([...svgs.keys()]).toEqual(['name-bfloat16.svg']);
    expect(svgs.get('name-bfloat16.svg')).toContain('with conversions');
  });
});
