import * as tf from '@tensorflow/tfjs';

const WARMUP_SHARE = 0.05;
const LONGEST_WARMUP = 100;
const FINAL_SHARE = 0.05;

/** Linear warm-up to `peak`, then a cosine down to a twentieth of it at the last step. */
export function learningRateAt(step: number, steps: number, peak: number): number {
  const warmup = Math.max(1, Math.min(LONGEST_WARMUP, Math.round(steps * WARMUP_SHARE)));
  if (step < warmup) {
    return peak * (step + 1) / warmup;
  }
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + Math.cos(Math.PI * progress)) / 2);
}

/** Fields of tfjs' Adam that are private in TypeScript only; checked with tfjs 4.22. */
interface AdamPowers {
  accBeta1: tf.Variable;
  accBeta2: tf.Variable;
}

/** tfjs' Adam with a learning rate that is set before each step, and its whole state as tensors. */
export class ScheduledAdam extends tf.AdamOptimizer {
  constructor() {
    super(0, 0.9, 0.99, 1e-8);
  }

  setLearningRate(rate: number) {
    this.learningRate = rate;
  }

  /** First and second moments, each in the order of the trained variables, then β₁ᵗ and β₂ᵗ. Still the optimizer's. */
  state(): tf.Tensor[] {
    const {accBeta1, accBeta2} = this as unknown as AdamPowers;
    return [...this.moments(), accBeta1, accBeta2];
  }

  private moments(): tf.Tensor[] {
    const {accumulatedFirstMoment, accumulatedSecondMoment} =
        this as unknown as Record<string, Array<{variable: tf.Variable}>>;
    return [...accumulatedFirstMoment, ...accumulatedSecondMoment].map(({variable}) => variable);
  }

  /** Takes up what `state` gave after `steps` steps. The tensors stay the caller's. */
  async restore(state: readonly tf.Tensor[], steps: number) {
    const [beta1Power, beta2Power] = state.slice(-2);
    tf.dispose(this.moments()); // setWeights would leave them behind
    const iterations = tf.scalar(steps, 'int32');
    await this.setWeights(
        [iterations, ...state.slice(0, -2)].map((tensor, place) => ({name: `adam_${place}`, tensor})));
    iterations.dispose();
    // setWeights computes the powers anew, which differs in the last bits from multiplying step by step.
    const {accBeta1, accBeta2} = this as unknown as AdamPowers;
    accBeta1.assign(beta1Power as tf.Scalar);
    accBeta2.assign(beta2Power as tf.Scalar);
  }
}
