import {ATTENTION_KINDS} from './attention.js';
import type {AttentionKind} from './attention.js';
import {randomBatch} from './batches.js';
import type {RunConfig} from './config.js';
import {median, peakBytes, timeOf} from './measure.js';
import {Rng} from './rng.js';
import type {Corpus} from './text.js';
import {Trainer} from './trainer.js';

export interface StepCost {
  readonly milliseconds: number;
  /** Beyond weights and optimizer state, which both kinds have alike. */
  readonly peakBytes: number;
}

export type StepCosts = Record<AttentionKind, StepCost>;

/**
 * The same training step with both kinds of attention: two fresh models of the same size, the same batch, turn by turn,
 * the median of `repeats`. The model that was trained is not touched.
 */
export async function compareSteps(corpus: Corpus, config: RunConfig, repeats = 5): Promise<StepCosts> {
  const windows = randomBatch(corpus.train, new Rng(config.seed), config.batch, config.context);
  const trainers = ATTENTION_KINDS.map(attention => new Trainer(corpus, {...config, attention}));
  const times = ATTENTION_KINDS.map((): number[] => []);
  const peaks: number[] = [];
  for (const trainer of trainers) {
    await timeOf(() => [trainer.minimize(windows)]); // makes optimizer state, compiles kernels
    peaks.push(await peakBytes(() => [trainer.minimize(windows)]));
  }
  for (let n = 0; n < repeats; n++) {
    for (const [place, trainer] of trainers.entries()) {
      times[place].push(await timeOf(() => [trainer.minimize(windows)]));
    }
  }
  trainers.forEach(trainer => trainer.dispose());
  return Object.fromEntries(ATTENTION_KINDS.map(
      (kind, place) => [kind, {milliseconds: median(times[place]), peakBytes: peaks[place]}])) as StepCosts;
}
