import type {Environment} from './environment.js';
import type {Timing} from './timing.js';

/** What answers one query over a cache: our attention over a cache, or tfjs' matMul, softmax, matMul over its rows. */
export type DecodeKind = 'flash'|'standard';

/** One measured line of benchmarks/results/decode-*.json. */
export interface DecodeResult extends Timing {
  kind: DecodeKind;
  /** Keys in the cache. One query, one sequence. */
  keys: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  /** Parts of the keys that were asked for; 0 leaves it to the plan. */
  numSplits: number;
  /** k and v read once, per second. */
  gigabytesPerSecond: number;
}

export interface DecodeResultsFile {
  environment: Environment;
  results: DecodeResult[];
}
