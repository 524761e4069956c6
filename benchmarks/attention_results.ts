import type {Kind} from './attention_kinds.js';
import type {Environment} from './environment.js';
import type {Timing} from './timing.js';

/**
 * Why a shape is measured: the sweep over lengths at one number of tokens, the shape that the project's targets name,
 * or a single head at lengths that only linear memory can reach.
 */
export type Series = 'sweep'|'target'|'one head';

/** One measured line of benchmarks/results/attention-*.json. */
export interface Result extends Timing {
  kind: Kind;
  pass: 'forward'|'forward+backward';
  batch: number;
  heads: number;
  length: number;
  headSize: number;
  causal: boolean;
  series: Series;
  /** 4·B·H·N²·D forward, 2.5 times that more for backward, halved under causal masking; per second. */
  tflops: number;
  /** Every input read once and every output written once. */
  leastBytes: number;
  peakBytes: number;
}

export interface Skipped extends Pick<Result, 'kind'|'batch'|'heads'|'length'|'headSize'|'causal'> {
  why: string;
}

export interface ResultsFile {
  environment: Environment;
  results: Result[];
  skipped: Skipped[];
}
