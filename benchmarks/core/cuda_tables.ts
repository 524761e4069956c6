import type {CudaAttentionRow, CudaDecodeRow, CudaKind} from './cuda_results.js';
import type {Table} from './tables.js';

const NAMES: Record<CudaKind|'copy', string> = {
  flash: 'flashAttention', cudnn: 'cuDNN', 'flash-attention-2': 'FlashAttention-2', efficient: 'memory-efficient',
  math: 'unfused', copy: 'a copy on the device',
};
const ORDER: readonly string[] = Object.keys(NAMES);
const PASSES = ['forward', 'backward'] as const;
const ANY_ORDER = 'deterministic: false';
const WITH_CONVERSIONS = 'with conversions';

/** What computed a row, as plots and tables call it. */
export const cudaName =
    ({kind, deterministic, conversions}: Pick<CudaAttentionRow, 'kind'|'deterministic'|'conversions'>): string =>
      NAMES[kind] + (deterministic === false ? ` ${ANY_ORDER}` : '') + (conversions ? ` ${WITH_CONVERSIONS}` : '');

/** The names that occur, this package's first. */
export function cudaNames(rows: readonly CudaAttentionRow[]): string[] {
  const place = ({kind, deterministic, conversions}: CudaAttentionRow) =>
    4 * ORDER.indexOf(kind) + (deterministic === false ? 2 : 0) + (conversions ? 1 : 0);
  return [...new Set([...rows].sort((a, b) => place(a) - place(b)).map(cudaName))];
}

export const COMPUTE_TYPES = ['bfloat16', 'float16', 'tensorfloat32', 'float32'] as const;

const digits = (x: number|undefined): string => x === undefined ? '—' : x.toFixed(x < 99.5 ? 1 : 0);

/** One line a shape of this compute type: TFLOP/s of all that computed it. */
export function cudaAttentionTable(rows: readonly CudaAttentionRow[]): Table {
  const columns = PASSES.flatMap(
      pass => cudaNames(rows.filter(row => row.pass === pass)).map((name, n) => ({pass, name, isFirst: n === 0})));
  const shapes = new Map(rows.map(row => [[row.length, row.headSize, row.causal].join(), row]));
  const sorted = [...shapes.values()].sort(
      (a, b) => a.headSize - b.headSize || a.length - b.length || Number(a.causal) - Number(b.causal));
  const find = (shape: CudaAttentionRow, pass: CudaAttentionRow['pass'], name: string) => rows.find(row =>
      row.pass === pass && cudaName(row) === name && row.length === shape.length && row.headSize === shape.headSize &&
      row.causal === shape.causal)?.tflops;
  const short = (name: string) => name.replace(`${NAMES.flash} `, '');
  return {
    header: [
      'N', 'D', 'causal',
      ...columns.map(({pass, name, isFirst}) => isFirst ? `${pass}: ${name}` : short(name)),
    ],
    rows: sorted.map(shape => [
      String(shape.length), String(shape.headSize), shape.causal ? 'yes' : '',
      ...columns.map(({pass, name}) => digits(find(shape, pass, name))),
    ]),
  };
}

/** One line each that computed a long sequence. */
export function cudaLongTable(rows: readonly CudaAttentionRow[]): Table {
  const forward = rows.filter(({pass}) => pass === 'forward');
  return {
    header: ['N', 'D', 'computed by', 'forward s', 'backward s', 'TFLOP/s', 'TFLOP/s', 'peak MiB'],
    rows: forward.map(row => {
      const backward = rows.find(other => other.pass === 'backward' && cudaName(other) === cudaName(row) &&
          other.length === row.length && other.headSize === row.headSize && other.causal === row.causal);
      const seconds = (of?: CudaAttentionRow) => of ? (of.medianMs / 1000).toFixed(2) : '—';
      return [
        String(row.length), String(row.headSize), cudaName(row), seconds(row), seconds(backward), digits(row.tflops),
        digits(backward?.tflops), backward?.peakBytes ? (backward.peakBytes / 2 ** 20).toFixed(0) : '—',
      ];
    }),
  };
}

export function cudaDecodeTable(rows: readonly CudaDecodeRow[]): Table {
  const copy = rows.find(({kind}) => kind === 'copy');
  return {
    header: ['computed by', 'keys and values in', 'µs', '± %', 'GB/s', 'of a copy'],
    rows: rows.map(row => [
      NAMES[row.kind], row.kind === 'copy' ? '' : row.computeType ?? 'float32', (1000 * row.medianMs).toFixed(1),
      (100 * row.spread).toFixed(0), row.gigabytesPerSecond.toFixed(0),
      copy ? `${(100 * row.gigabytesPerSecond / copy.gigabytesPerSecond).toFixed(0)}%` : '—',
    ]),
  };
}

/** How many times as fast as another kind the kernels alone were, least and most over the shapes. */
export function cudaTimesAsFast(
    rows: readonly CudaAttentionRow[], other: CudaKind, pass: CudaAttentionRow['pass']): [number, number]|undefined {
  const ratios = rows.filter(row => cudaName(row) === NAMES.flash && row.pass === pass)
      .flatMap(own => {
        const peer = rows.find(row => row.kind === other && row.pass === pass && row.length === own.length &&
            row.headSize === own.headSize && row.causal === own.causal && row.computeType === own.computeType);
        return peer ? [own.tflops / peer.tflops] : [];
      });
  return ratios.length === 0 ? undefined : [Math.min(...ratios), Math.max(...ratios)];
}

/** Full names in sentences. */
export const peerName = (kind: CudaKind): string => kind === 'efficient' ? 'the memory-efficient kernel' :
  kind === 'math' ? 'unfused ops' : NAMES[kind];
