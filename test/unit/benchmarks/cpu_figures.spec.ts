import {cpuAttentionSection} from '../../../benchmarks/cpu_figures.js';
import {cpuAttentionTable, cpuDecodeTable, cpuTrainingTable, timesAsFast} from
  '../../../benchmarks/core/cpu_tables.js';
import type {AttentionKind, AttentionRow, DecodeRow, Pass, TrainingRow} from '../../../benchmarks/core/results.js';
import {findPyTorch} from '../../../benchmarks/pytorch/find.js';

const TIMING = {spread: 0.1, batches: 3, runsPerBatch: 1};

function row(kind: AttentionKind, backend: string, pass: Pass, medianMs: number, headSize = 64): AttentionRow {
  const flops = 4 * 2 * 1024 ** 2 * headSize;
  return {
    kind, backend, pass, batch: 1, heads: 2, length: 1024, headSize, causal: false, series: 'one sequence', ...TIMING,
    medianMs, tflops: flops * (pass === 'forward' ? 1 : 3.5) / medianMs / 1e9, leastBytes: 1,
  };
}

const ROWS = [
  row('flash', 'tensorflow', 'forward', 1), row('flash', 'tensorflow', 'forward+backward', 3),
  row('pytorch', 'pytorch', 'forward', 2), row('pytorch', 'pytorch', 'forward+backward', 5),
  row('standard', 'tensorflow', 'forward', 4),
  row('flash', 'tensorflow', 'forward', 2, 128), row('pytorch', 'pytorch', 'forward', 3, 128),
];

describe('figures of the CPU', () => {
  it('have a column for all that computed', () => {
    const {header, rows} = cpuAttentionTable(ROWS);
    expect(header).toEqual([
      'H', 'N', 'D', 'causal', 'forward: tensorflow', 'PyTorch', 'unfused on tensorflow', 'backward: tensorflow',
      'PyTorch', 'unfused on tensorflow',
    ]);
    expect(rows).toEqual([
      ['2', '1024', '64', '', '537', '268', '134', '671', '447', '—'],
      ['2', '1024', '128', '', '537', '358', '—', '—', '—', '—'],
    ]);
  });

  it('say how much faster, over all shapes, and what was not measured', async () => {
    expect(timesAsFast(ROWS, 'tensorflow', 'pytorch', 'forward')!.map(times => times.toFixed(9)))
        .toEqual(['1.500000000', '2.000000000']);
    expect(timesAsFast(ROWS, 'tensorflow', 'pytorch', 'backward')![0]).toBeCloseTo(1.5, 9);
    expect(timesAsFast(ROWS, 'cpu', 'pytorch', 'forward')).toBeUndefined();
    const svgs = new Map<string, string>();
    const environment =
        {date: '2026-01-01', commit: 'abc', backend: 'tensorflow', device: 'A CPU', tfjs: '4', threads: 2};
    const section = await cpuAttentionSection(
        'name', {environment, results: ROWS, skipped: [{label: 'one', why: 'because'}]}, svgs);
    expect(section).toContain('on tensorflow 1.50–2.00 forward, 1.50–1.50 backward times as fast as PyTorch');
    expect(section).toContain('Not measured: one (because).');
    expect(svgs.get('name-speed.svg')).toContain('PyTorch');
  });

  it('hold decoding to the fastest read', () => {
    const decode = (kind: DecodeRow['kind'], gigabytesPerSecond: number, more: Partial<DecodeRow> = {}): DecodeRow => ({
      kind, backend: 'tensorflow', keys: 8, queryHeads: 4, keyHeads: 2, headSize: 16, numSplits: 0, ...TIMING,
      medianMs: 1, gigabytesPerSecond, ...more,
    });
    const {rows} = cpuDecodeTable([
      decode('read', 10, {how: 'sum'}), decode('read', 20, {backend: 'pytorch', how: 'dot'}),
      decode('flash', 15, {layout: 'bhnd'}),
    ]);
    expect(rows).toEqual([
      ['plain read on tensorflow (sum)', '', '8', '1.00', '10', '10.0', '50%'],
      ['plain read by PyTorch (dot)', '', '8', '1.00', '10', '20.0', '100%'],
      ['flashAttention on tensorflow', 'bhnd', '8', '1.00', '10', '15.0', '75%'],
    ]);
  });

  it('have a line for each model', () => {
    const training = (context: number, medianMs: number, native?: boolean) =>
      ({kind: 'flash', backend: 'wasm', native, context, medianMs} as TrainingRow);
    expect(cpuTrainingTable([training(8, 10), training(8, 30, false), training(16, 20)])).toEqual({
      header: ['context', 'ms a step: flashAttention on wasm', 'flashAttention on wasm, TypeScript'],
      rows: [['8', '10', '30'], ['16', '20', '—']],
    });
  });

  it('lack PyTorch where there is none, and say so', () => {
    expect(findPyTorch('/nowhere/python')).toMatch(/^\/nowhere\/python: .*ENOENT; --python names an interpreter/);
  });
});
