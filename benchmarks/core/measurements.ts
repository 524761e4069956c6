import type {AttentionKind, AttentionShape, DecodeKind, Series} from './results.js';
import type {Variant} from './variants.js';

/** One thing to measure: plain data, so that it can be sent to another process. */
export interface AttentionMeasurement extends AttentionShape {
  suite: 'attention';
  kind: AttentionKind;
  variant: Variant;
  causal: boolean;
  series: Series;
  /** Instead of `tolerance(variant)`. */
  tolerance?: number;
}

export interface DecodeMeasurement {
  suite: 'decode';
  kind: 'flash'|'standard';
  variant: Variant;
  keys: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  numSplits: number;
}

export interface CopyMeasurement {
  suite: 'decode';
  kind: 'copy';
  bytes: number;
}

export interface HostMeasurement {
  suite: 'host';
  kind: 'flash'|'standard';
  variant: Variant;
  batches: number;
  callsPerBatch: number;
}

export interface TrainingMeasurement {
  suite: 'training';
  kind: 'flash'|'standard';
  context: number;
  layers: number;
  heads: number;
  width: number;
  batch: number;
  steps: number;
  warmUpSteps: number;
}

export type Measurement =
    AttentionMeasurement|DecodeMeasurement|CopyMeasurement|HostMeasurement|TrainingMeasurement;

/** A measurement in words, the same in every line of output. */
export function labelOf(m: Measurement): string {
  switch (m.suite) {
    case 'attention': {
      const shape = `B${m.batch} H${m.heads} N${m.length} D${m.headSize}${m.causal ? ' causal' : ''}`;
      return `${shape} ${computationLabel(m.kind, m.variant.label)}`;
    }
    case 'decode':
      return m.kind === 'copy' ? `copy of ${m.bytes / 2 ** 20} MiB` :
          `${m.keys} keys, ${m.queryHeads} heads, ${m.keyHeads} key heads of ${m.headSize}` +
          `${m.numSplits > 0 ? `, ${m.numSplits} splits` : ''} ${computationLabel(m.kind, m.variant.label)}`;
    case 'host':
      return `host ${computationLabel(m.kind, m.variant.label)}`;
    case 'training':
      return `training, context ${m.context}, width ${m.width}, ${m.layers} layers, batch ${m.batch}, ${m.kind}`;
  }
}

const NAMES: Record<AttentionKind|DecodeKind, string> = {
  flash: 'flashAttention', standard: 'matMul, softmax, matMul', onnxruntime: 'onnxruntime', copy: 'copy',
};

/** What computes, as plots and tables call it. tfjs' own ops know float32 only. */
export function computationLabel(kind: AttentionKind|DecodeKind, variant: string|undefined): string {
  return kind === 'standard' || kind === 'copy' ? NAMES[kind] : `${NAMES[kind]} ${variant ?? 'float32'}`;
}
