import type {
  AttentionMeasurement, CopyMeasurement, DecodeMeasurement, HostMeasurement, TrainingMeasurement,
} from './measurements.js';
import type {AttentionKind, AttentionShape, Series} from './results.js';
import type {Variant} from './variants.js';

/** What is measured of attention, most important first: whoever runs out of time lacks the rest. */
export interface AttentionSuite {
  kinds: readonly AttentionKind[];
  variants: readonly Variant[];
  /** In this order. */
  lengths: readonly number[];
  sizes: readonly number[];
  /** B·N of the sweep; shorter lengths come in larger batches. */
  tokens: number;
  /** H·D of the sweep. */
  width: number;
  /** Heads of a single sequence at the same lengths; 0 leaves them out. */
  heads: number;
  causal: readonly boolean[];
  tolerance?: number;
}

const FLOAT32: Variant = {label: 'float32', computeType: 'float32'};

function shapes({lengths, sizes, tokens, width, heads}: AttentionSuite): Array<AttentionShape&{series: Series}> {
  const every = (shape: (length: number, headSize: number) => AttentionShape, series: Series) =>
      lengths.flatMap(length => sizes.map(headSize => ({...shape(length, headSize), series})));
  const sweep = every((length, headSize) => ({
    batch: Math.max(1, Math.floor(tokens / length)), heads: Math.max(1, Math.floor(width / headSize)), length, headSize,
  }), 'sweep');
  const isSame = (a: AttentionShape, b: AttentionShape) =>
      a.batch === b.batch && a.heads === b.heads && a.length === b.length && a.headSize === b.headSize;
  const sequences = heads === 0 ? [] :
                                  every((length, headSize) => ({batch: 1, heads, length, headSize}), 'one sequence');
  return [...sweep, ...sequences.filter(shape => !sweep.some(other => isSame(shape, other)))];
}

export function attentionSuite(suite: AttentionSuite): AttentionMeasurement[] {
  const {kinds, variants, causal, tolerance} = suite;
  // onnxruntime computes in the type of its tensors, and tfjs' own ops in float32.
  const variantsOf: Record<AttentionKind, readonly Variant[]> = {
    flash: variants,
    standard: [FLOAT32],
    onnxruntime: variants.filter(({computeType, plan}) =>
      plan === undefined && (computeType === 'float32' || computeType === 'float16')),
    pytorch: [FLOAT32],
  };
  return causal.flatMap(isCausal => shapes(suite).flatMap(shape => kinds.flatMap(kind => variantsOf[kind].map(
      (variant): AttentionMeasurement =>
          ({suite: 'attention', kind, variant, ...shape, causal: isCausal, tolerance})))));
}

export interface DecodeSuite {
  kinds: ReadonlyArray<'flash'|'standard'|'copy'>;
  variants: readonly Variant[];
  keys: readonly number[];
  queryHeads: number;
  keyHeads: readonly number[];
  headSize: number;
  splits: readonly number[];
  copyBytes: number;
}

export function decodeSuite(suite: DecodeSuite): Array<CopyMeasurement|DecodeMeasurement> {
  const {kinds, variants, keys, queryHeads, keyHeads, headSize, splits, copyBytes} = suite;
  const attention = (kind: 'flash'|'standard', variant: Variant, numSplits: number) => keyHeads.flatMap(
      heads => keys.map((length): DecodeMeasurement => ({
        suite: 'decode', kind, variant, keys: length, queryHeads, keyHeads: heads, headSize, numSplits,
      })));
  return [
    ...kinds.includes('copy') ? [{suite: 'decode', kind: 'copy', bytes: copyBytes} as const] : [],
    ...kinds.includes('flash') ?
      variants.flatMap(variant => splits.flatMap(numSplits => attention('flash', variant, numSplits))) : [],
    ...kinds.includes('standard') ? attention('standard', FLOAT32, 0) : [],
  ];
}

export interface HostSuite {
  kinds: ReadonlyArray<'flash'|'standard'>;
  variants: readonly Variant[];
  batches: number;
  callsPerBatch: number;
}

export function hostSuite({kinds, variants, batches, callsPerBatch}: HostSuite): HostMeasurement[] {
  return kinds.flatMap(kind => (kind === 'flash' ? variants : [FLOAT32]).map(
      (variant): HostMeasurement => ({suite: 'host', kind, variant, batches, callsPerBatch})));
}

export type TrainingSuite = Omit<TrainingMeasurement, 'suite'|'kind'>&{kinds: ReadonlyArray<'flash'|'standard'>};

export function trainingSuite({kinds, ...sizes}: TrainingSuite): TrainingMeasurement[] {
  return kinds.map(kind => ({suite: 'training', kind, ...sizes}));
}
