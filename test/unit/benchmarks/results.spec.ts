import {mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {parseCommand} from '../../../benchmarks/command_line.js';
import {casesOf, namesIn, teraflops} from '../../../benchmarks/core/figures_data.js';
import {labelOf} from '../../../benchmarks/core/measurements.js';
import type {AttentionMeasurement} from '../../../benchmarks/core/measurements.js';
import {memoryPlot, speedPlot} from '../../../benchmarks/core/plots.js';
import type {AttentionRow, Environment, ResultsFile} from '../../../benchmarks/core/results.js';
import {attentionTable, decodeTable} from '../../../benchmarks/core/tables.js';
import {parseVariant, withVariant} from '../../../benchmarks/core/variants.js';
import {attendInFloat64, outputError} from '../../../benchmarks/core/verify_rows.js';
import type {ReadRows} from '../../../benchmarks/core/verify_rows.js';
import {ResultsWriter} from '../../../benchmarks/results_file.js';

const ENVIRONMENT: Environment =
    {date: '2026-01-01', commit: 'abc', backend: 'webgpu', device: 'A (GPU) 1.0', tfjs: '4.22.0'};

function row(changes: Partial<AttentionRow> = {}): AttentionRow {
  return {
    kind: 'flash', pass: 'forward', batch: 1, heads: 2, length: 1024, headSize: 64, causal: false, series: 'sweep',
    medianMs: 1, spread: 0.1, batches: 5, runsPerBatch: 3, tflops: 4 * 2 * 1024 ** 2 * 64 / 1e9, leastBytes: 1,
    peakBytes: 2 ** 20, ...changes,
  };
}

describe('a results file', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'results-'));
  });

  afterEach(() => rmSync(folder, {recursive: true, force: true}));

  const read = () => JSON.parse(
      readFileSync(join(folder, 'attention-a-gpu-1-0.json'), 'utf8')) as ResultsFile<AttentionRow>;

  it('has each row as soon as it is there, and the last of each', () => {
    const writer = new ResultsWriter(folder, 'attention', ENVIRONMENT);
    writer.add('a', row());
    expect(read().results.map(({medianMs}) => medianMs)).toEqual([1]);
    writer.add('a', row({medianMs: 2}));
    writer.add('b', row({kind: 'standard'}));
    writer.skip({label: 'c', why: 'because'});
    expect(read().results.map(({kind, medianMs}) => [kind, medianMs])).toEqual([['flash', 2], ['standard', 1]]);
    expect(read().skipped).toEqual([{label: 'c', why: 'because'}]);
    writer.remove([row()]);
    expect(read().results.map(({kind}) => kind)).toEqual(['standard']);
    expect(readdirSync(folder)).toEqual(['attention-a-gpu-1-0.json']);
  });

  it('is gone on with on the same device and commit, else begun anew', () => {
    new ResultsWriter(folder, 'attention', ENVIRONMENT).add('a', row());
    const peers = new ResultsWriter(folder, 'attention', {...ENVIRONMENT, date: '2026-01-02'});
    peers.tookPart({onnxruntime: '1.30.0'});
    peers.add('b', row({kind: 'onnxruntime'}));
    expect(read().results.map(({kind}) => kind)).toEqual(['flash', 'onnxruntime']);
    expect(read().environment).toEqual({...ENVIRONMENT, date: '2026-01-02', onnxruntime: '1.30.0'});
    new ResultsWriter(folder, 'attention', {...ENVIRONMENT, commit: 'def'}).add('a', row());
    expect(read().results.length).toBe(1);
  });
});

describe('figures', () => {
  const rows = [
    row(), row({pass: 'forward+backward', medianMs: 3}), row({kind: 'onnxruntime', computeType: 'float16', tflops: 7}),
    row({kind: 'standard', medianMs: 4}), row({kind: 'standard', pass: 'forward+backward', medianMs: 3.9}),
    row({length: 2048, computeType: 'float32'}),
    row({length: 2048, computeType: 'float16', plan: 'matrix:float16', tflops: 99}),
  ];

  it('have backward as what is left of both, where that says anything', () => {
    const [first] = casesOf(rows);
    expect(teraflops(first, 'flashAttention float32', 'backward')!)
        .toBeCloseTo(2.5 * 4 * 2 * 1024 ** 2 * 64 / 2 / 1e9, 9);
    expect(teraflops(first, 'matMul, softmax, matMul', 'backward')).toBeUndefined();
    expect(teraflops(first, 'onnxruntime float16', 'forward')).toBe(7);
  });

  it('have a column for all that computed, rows of older files among them', () => {
    expect(namesIn(rows)).toEqual([
      'flashAttention float32', 'flashAttention matrix:float16', 'matMul, softmax, matMul', 'onnxruntime float16',
    ]);
    const {header, rows: lines} = attentionTable(rows);
    expect(header).toEqual([
      'B', 'H', 'N', 'D', 'causal', 'forward: float32', 'matrix:float16', 'unfused', 'onnxruntime float16',
      'backward: float32', 'peak MiB: float32', 'unfused',
    ]);
    expect(lines).toEqual([
      ['1', '2', '1024', '64', '', '0.54', '—', '0.54', '7.0', '0.67', '1', '1'],
      ['1', '2', '2048', '64', '', '0.54', '99.0', '—', '—', '—', '—', '—'],
    ]);
  });

  it('have the share of a copy that decoding reaches', () => {
    const timing = {medianMs: 1, spread: 0, batches: 1, runsPerBatch: 1};
    const key = {keys: 64, queryHeads: 4, keyHeads: 2, headSize: 16, numSplits: 0};
    const {rows: lines} = decodeTable([
      {kind: 'copy', ...key, keys: 0, ...timing, gigabytesPerSecond: 2000},
      {kind: 'flash', ...key, ...timing, gigabytesPerSecond: 1500},
      {kind: 'standard', ...key, ...timing, medianMs: 3, gigabytesPerSecond: 500},
    ]);
    expect(lines).toEqual([['64', '2', 'float32', '1.000', '—', '1500', '75%', '3.000', '3.0']]);
  });

  it('are drawn where there is something to draw', async () => {
    expect(await speedPlot(rows)).toContain('flashAttention matrix:float16');
    expect(await memoryPlot(rows)).toContain('peak memory');
    expect(await speedPlot([row({causal: true})])).toBeUndefined();
    expect(await memoryPlot([])).toBeUndefined();
  });
});

describe('a benchmark\'s command line', () => {
  const found = (onnxruntime: boolean, other: true|string = true) =>
    ({onnxruntime, pytorch: () => other, tfjsNode: () => other});

  const attention = (...args: string[]) => parseCommand(args, found(false)).measurements as AttentionMeasurement[];

  it('asks for the targets first', () => {
    const all = attention();
    expect(all.slice(0, 4).map(labelOf)).toEqual([
      'B4 H32 N4096 D64 flashAttention float32', 'B4 H32 N4096 D64 flashAttention float16',
      'B4 H32 N4096 D64 matMul, softmax, matMul', 'B4 H16 N4096 D128 flashAttention float32',
    ]);
    const shapes = new Set(all.map(({batch, heads, length, headSize}) => [batch, heads, length, headSize].join()));
    // Three lengths and two sizes, twice; one sequence of 16384 with 16 heads of 128 is in the sweep already.
    expect(shapes.size).toBe(11);
    expect(new Set(all.map(labelOf)).size).toBe(all.length);
  });

  it('has onnxruntime where it is there, and alone as peers', () => {
    const kinds = (args: string[], isThere: boolean) =>
      [...new Set((parseCommand(args, found(isThere)).measurements as AttentionMeasurement[]).map(({kind}) => kind))];
    expect(kinds(['bench'], true)).toEqual(['flash', 'standard', 'onnxruntime']);
    expect(kinds(['bench'], false)).toEqual(['flash', 'standard']);
    expect(kinds(['bench', '--kinds', 'flash'], true)).toEqual(['flash']);
    expect(kinds(['peers'], false)).toEqual(['onnxruntime']);
  });

  it('compares on the CPU what is there, and says what is not', () => {
    const whole = parseCommand(['cpu', '--threads', '3'], found(false));
    expect([whole.prefix, whole.threads, whole.absent]).toEqual(['cpu-', 3, []]);
    expect(whole.measurements.filter(({suite}) => suite === 'attention').slice(0, 4).map(labelOf)).toEqual([
      'B1 H16 N1024 D64 flashAttention on tensorflow', 'B1 H16 N1024 D64 flashAttention on cpu',
      'B1 H16 N1024 D64 PyTorch', 'B1 H16 N1024 D64 matMul, softmax, matMul on tensorflow',
    ]);
    expect(new Set(whole.measurements.map(labelOf)).size).toBe(whole.measurements.length);
    expect(new Set(whole.measurements.map(({suite}) => suite)).size).toBe(4);
    const bare = parseCommand(['cpu'], found(false, 'not here'));
    expect(bare.absent).toEqual(
        [{what: 'PyTorch', why: 'not here'}, {what: 'backend tensorflow', why: 'not here'}]);
    expect([...new Set(bare.measurements.map(({backend}) => backend))]).toEqual(['cpu', 'wasm']);
  });

  it('is refused where it names what does not exist', () => {
    for (const args of [
      ['nothing'], ['bench', '--nothing', '1'], ['bench', '--lengths', 'long'], ['decode', '--kinds', 'onnxruntime'],
      ['bench', '--variants', 'float64'], ['host', '--seconds', 'many'], ['host', '--lengths', '1'],
      ['cpu', '--threads', '0'], ['cpu', '--lengths', '1024'], ['cpu', '--parts', 'all'],
      ['cpu', '--backends', 'webgl'],
    ]) {
      expect(() => parseCommand(args, found(false))).withContext(args.join(' ')).toThrowError();
    }
  });

  it('names a plan to force before the type', async () => {
    expect(parseVariant('matrix:float16')).toEqual(
        {label: 'matrix:float16', computeType: 'float16', plan: 'matrix'});
    expect(() => parseVariant('nothing:float32')).toThrowError(/for the plan of a variant, received nothing:float32/);
    expect(await withVariant(parseVariant('float32'), () => Promise.resolve(1))).toBe(1);
  });
});

describe('verifying rows', () => {
  const rowsOf = (values: number[], size: number): ReadRows =>
    (first, count) => Promise.resolve(values.slice(first * size, (first + count) * size));

  it('computes attention in float64', () => {
    const output = attendInFloat64([1, 0], [0, 0, Math.SQRT2 * Math.log(3), 5], [4, 0, 8, 4], 2);
    expect([...output]).toEqual([jasmine.any(Number), jasmine.any(Number)]);
    expect(output[0]).toBeCloseTo(7, 12);
    expect(output[1]).toBeCloseTo(3, 12);
  });

  it('sees what is wrong, NaN too', async () => {
    const head = {
      q: rowsOf([1, 1], 1), k: rowsOf([0, 0], 1), v: rowsOf([2, 4], 1), queries: 2, keys: 2, causal: true,
    };
    expect(await outputError({...head, output: rowsOf([2, 3], 1)})).toBe(0);
    expect(await outputError({...head, output: rowsOf([2, 3.3], 1)})).toBeCloseTo(0.1, 12);
    expect(await outputError({...head, output: rowsOf([NaN, 3], 1)})).toBeNaN();
    expect(await outputError({...head, causal: false, output: rowsOf([3, 3], 1)})).toBe(0);
  });
});
