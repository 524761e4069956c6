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

const [BETA_1, BETA_2, EPSILON] = [0.9, 0.99, 1e-8];

/**
 * Adam (Kingma and Ba, 2015) over all variables as one vector, with a learning rate that is set before each step. tfjs'
 * own runs some 20 small kernels and uploads 7 numbers for each variable: on a GPU that takes longer than the model
 * (a GPT of 6 layers: 1151 dispatches and 362 uploads a step with tfjs' Adam, 545 and 50 like this).
 */
export class VectorAdam extends tf.Optimizer {
  static className = 'VectorAdam';
  private learningRate = 0;
  private steps = 0;
  private first?: tf.Tensor;
  private second?: tf.Tensor;
  private readonly constants = [BETA_1, 1 - BETA_1, BETA_2, 1 - BETA_2, EPSILON].map(x => tf.keep(tf.scalar(x)));

  setLearningRate(rate: number) {
    this.learningRate = rate;
  }

  override applyGradients(gradients: Parameters<tf.Optimizer['applyGradients']>[0]) {
    const named = Array.isArray(gradients) ? gradients :
                                             Object.entries(gradients).map(([name, tensor]) => ({name, tensor}));
    const variables = named.map(({name}) => tf.engine().registeredVariables[name]);
    this.steps++;
    tf.tidy(() => {
      const [beta1, rest1, beta2, rest2, epsilon] = this.constants;
      const gradient = tf.concat(named.map(({tensor}) => tf.reshape(tensor, [-1])));
      const blend = (old: tf.Tensor|undefined, share: tf.Tensor, now: tf.Tensor, rest: tf.Tensor) =>
          tf.keep(old ? tf.add(tf.mul(old, share), tf.mul(now, rest)) : tf.mul(now, rest));
      const [oldFirst, oldSecond] = [this.first, this.second];
      this.first = blend(oldFirst, beta1, gradient, rest1);
      this.second = blend(oldSecond, beta2, tf.square(gradient), rest2);
      tf.dispose([oldFirst, oldSecond].filter(tensor => tensor !== undefined));
      const scale = tf.add(tf.sqrt(tf.div(this.second, 1 - BETA_2 ** this.steps)), epsilon);
      const change = tf.mul(tf.div(this.first, scale), this.learningRate / (1 - BETA_1 ** this.steps));
      tf.split(change, variables.map(({size}) => size)).forEach((part, n) => {
        const variable = variables[n];
        variable.assign(tf.sub(variable, tf.reshape(part, variable.shape)));
      });
    });
  }

  /** First and second moments of all variables as vectors, none before the first step. Still the optimizer's. */
  state(): tf.Tensor[] {
    return this.first && this.second ? [this.first, this.second] : [];
  }

  /** Takes up what `state` gave after `steps` steps. The tensors stay the caller's. */
  restore([first, second]: readonly tf.Tensor[], steps: number) {
    tf.dispose(this.state());
    this.first = first && tf.keep(first.clone());
    this.second = second && tf.keep(second.clone());
    this.steps = steps;
  }

  override dispose() {
    tf.dispose([...this.state(), ...this.constants]);
  }

  override getConfig(): tf.serialization.ConfigDict {
    return {learningRate: this.learningRate};
  }
}
