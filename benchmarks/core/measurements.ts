import type {AttentionKind, AttentionShape, DecodeKind, Series} from './results.js';
import type {Variant} from './variants.js';

/** Where a run compares several tfjs backends, or a backend with and without the native addon. */
export interface On {
  /** Default: the run's own. */
  backend?: string;
  /** Default true. */
  native?: boolean;
}

/** One thing to measure: plain data, so that it can be sent to another process. */
export interface AttentionMeasurement extends AttentionShape, On {
  suite: 'attention';
  kind: AttentionKind;
  variant: Variant;
  causal: boolean;
  series: Series;
  /** Instead of `tolerance(variant)`. */
  tolerance?: number;
}

export interface DecodeMeasurement extends On {
  suite: 'decode';
  kind: Exclude<DecodeKind, 'copy'>;
  variant: Variant;
  keys: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  numSplits: number;
  /** Default `bnhd`. */
  layout?: 'bnhd'|'bhnd';
}

export interface CopyMeasurement extends On {
  suite: 'decode';
  kind: 'copy';
  bytes: number;
}

export interface HostMeasurement extends On {
  suite: 'host';
  kind: 'flash'|'standard';
  variant: Variant;
  batches: number;
  callsPerBatch: number;
}

export interface TrainingMeasurement extends On {
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
      return `${shape} ${computationLabel(m.kind, m.variant.label, m)}`;
    }
    case 'decode':
      return m.kind === 'copy' ? `copy of ${m.bytes / 2 ** 20} MiB` :
          `${m.keys} keys, ${m.queryHeads} heads, ${m.keyHeads} key heads of ${m.headSize}` +
          `${m.numSplits > 0 ? `, ${m.numSplits} splits` : ''}${m.layout ? ` ${m.layout}` : ''} ` +
          computationLabel(m.kind, m.variant.label, m);
    case 'host':
      return `host ${computationLabel(m.kind, m.variant.label, m)}`;
    case 'training':
      return `training, context ${m.context}, width ${m.width}, ${m.layers} layers, batch ${m.batch}, ` +
          computationLabel(m.kind, undefined, m);
  }
}

const NAMES: Record<AttentionKind|DecodeKind, string> = {
  flash: 'flashAttention', standard: 'matMul, softmax, matMul', onnxruntime: 'onnxruntime', copy: 'copy',
  pytorch: 'PyTorch', read: 'plain read',
};

/** What computes, as plots and tables call it. tfjs' own ops know float32 only, as all where backends are compared. */
export function computationLabel(
    kind: AttentionKind|DecodeKind, variant: string|undefined, {backend, native}: On = {}): string {
  if (backend !== undefined) {
    return backend === 'pytorch' ? kind === 'read' ? `${NAMES.read} by PyTorch` : NAMES.pytorch :
                                   `${NAMES[kind]} on ${backend}${native === false ? ', TypeScript' : ''}`;
  }
  return kind === 'standard' || kind === 'copy' ? NAMES[kind] : `${NAMES[kind]} ${variant ?? 'float32'}`;
}
