import type {AttentionMeasurement, DecodeMeasurement, HostMeasurement, Measurement, TrainingMeasurement} from
  './measurements.js';

/** What takes longest comes last: whoever runs out of time lacks that. */
export const CPU_PARTS = ['decode', 'training', 'host', 'attention'] as const;
export type CpuPart = typeof CPU_PARTS[number];

/** What is measured on the CPU, float32: this package on several backends, tfjs-node's own ops, PyTorch. */
export interface CpuSuite {
  parts: readonly CpuPart[];
  /** tfjs backends that attention, decoding and calls are measured on. */
  backends: readonly string[];
  hasPyTorch: boolean;
  lengths: readonly number[];
  /** Of each length: unfused scores of many heads would not fit. */
  heads: readonly number[];
  sizes: readonly number[];
  /** Of the decoded cache. */
  keys: readonly number[];
  /** Of the model that is trained. */
  contexts: readonly number[];
  steps: number;
}

const VARIANT = {label: 'float32', computeType: 'float32'} as const;

function attention({backends, hasPyTorch, lengths, heads, sizes}: CpuSuite): AttentionMeasurement[] {
  const computed = [
    ...backends.map(backend => ({kind: 'flash', backend} as const)),
    ...hasPyTorch ? [{kind: 'pytorch', backend: 'pytorch'} as const] : [],
    ...backends.includes('tensorflow') ? [{kind: 'standard', backend: 'tensorflow'} as const] : [],
  ];
  return lengths.flatMap((length, n) => sizes.flatMap(headSize => [false, true].flatMap(causal => computed.map(
      (what): AttentionMeasurement => ({
        suite: 'attention', ...what, variant: VARIANT, batch: 1, heads: heads[n], length, headSize, causal,
        series: 'one sequence',
      })))));
}

function decode({backends, hasPyTorch, keys}: CpuSuite): DecodeMeasurement[] {
  type What = Pick<DecodeMeasurement, 'kind'|'backend'|'layout'>;
  const computed: What[] = [
    ...hasPyTorch ? [{kind: 'read', backend: 'pytorch'} as const] : [],
    ...backends.includes('tensorflow') ? [{kind: 'read', backend: 'tensorflow'} as const] : [],
    ...backends.flatMap(backend => (['bnhd', 'bhnd'] as const).map(
        (layout): What => ({kind: 'flash', backend, layout}))),
    ...hasPyTorch ? [{kind: 'pytorch', backend: 'pytorch', layout: 'bhnd'} as const] : [],
    ...backends.includes('tensorflow') ? [{kind: 'standard', backend: 'tensorflow', layout: 'bhnd'} as const] : [],
  ];
  return keys.flatMap(length => computed.map((what): DecodeMeasurement => ({
    suite: 'decode', ...what, variant: VARIANT, keys: length, queryHeads: 32, keyHeads: 8, headSize: 128, numSplits: 0,
  })));
}

function host({backends}: CpuSuite): HostMeasurement[] {
  return backends.flatMap(backend => (['flash', 'standard'] as const).map((kind): HostMeasurement =>
      ({suite: 'host', kind, backend, variant: VARIANT, batches: 20, callsPerBatch: 50})));
}

/** Where tfjs-node is not there, wasm trains fastest, with and without the addon. */
function training({backends, contexts, steps}: CpuSuite): TrainingMeasurement[] {
  type What = Pick<TrainingMeasurement, 'kind'|'backend'|'native'>;
  const computed: What[] = [
    ...backends.includes('tensorflow') ? [
      {kind: 'flash', backend: 'tensorflow'} as const, {kind: 'standard', backend: 'tensorflow'} as const,
    ] : [],
    {kind: 'flash', backend: 'wasm'}, {kind: 'flash', backend: 'wasm', native: false},
    {kind: 'standard', backend: 'wasm'},
  ];
  return contexts.flatMap(context => computed.map((what): TrainingMeasurement => ({
    suite: 'training', ...what, context, layers: 2, heads: 4, width: 64, batch: 2, steps, warmUpSteps: 1,
  })));
}

const MEASUREMENTS: Record<CpuPart, (suite: CpuSuite) => Measurement[]> = {attention, decode, host, training};

export function cpuSuite(suite: CpuSuite): Measurement[] {
  return CPU_PARTS.filter(part => suite.parts.includes(part)).flatMap(part => MEASUREMENTS[part](suite));
}
