import type {Trainer} from './trainer.js';

/** What there is to say after a step. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  /** Mean of the last losses, which jumps less. */
  readonly smoothLoss: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
  /** Given when the validation loss was measured after this step. */
  readonly validationLoss?: number;
}

const SMOOTHING_STEPS = 20;
const SPEED_STEPS = 20;

/** Lets timers, signals and the page have their turn: on the CPU nothing else does between two steps. */
function breathe(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, 0));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Trains to the configured number of steps, telling of each. Stop by leaving the loop: the step told of last is
 * complete. The validation loss is measured before the first step, `checks` times on the way, and at the end.
 */
export async function* train(trainer: Trainer, checks = 10): AsyncGenerator<Progress, void> {
  const {steps} = trainer.config;
  const interval = Math.max(1, Math.round(steps / checks));
  const durations: number[] = [];
  if (trainer.step === 0) {
    await trainer.validate();
  }
  while (trainer.step < steps) {
    const start = performance.now();
    const loss = await trainer.trainStep();
    durations.push((performance.now() - start) / 1000);
    if (durations.length > SPEED_STEPS) {
      durations.shift();
    }
    const {step} = trainer;
    const isCheck = step % interval === 0 || step === steps;
    const validationLoss = isCheck ? await trainer.validate() : undefined;
    await breathe();
    const secondsPerStep = mean(durations);
    yield {
      step, steps, loss, validationLoss,
      smoothLoss: mean(trainer.losses.slice(-SMOOTHING_STEPS)),
      tokensPerSecond: trainer.tokensPerStep / secondsPerStep,
      secondsLeft: (steps - step) * secondsPerStep,
    };
  }
}
