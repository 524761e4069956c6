import * as tf from '@tensorflow/tfjs';

import {fixedBatches, randomBatch} from './batches.js';
import type {Batch} from './batches.js';
import type {RunConfig} from './config.js';
import {batchLoss, meanLoss} from './loss.js';
import {buildGpt, namedWeights} from './model.js';
import {learningRateAt, VectorAdam} from './optimizer.js';
import {Rng} from './rng.js';
import type {Corpus} from './text.js';

/** A tensor's values on the host. */
export interface NamedArray {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

export interface LossAt {
  readonly step: number;
  readonly loss: number;
}

/** All that a run needs to go on exactly where it was. */
export interface Snapshot {
  readonly step: number;
  readonly rngState: number;
  /** Training loss of each step. */
  readonly losses: readonly number[];
  readonly validation: readonly LossAt[];
  readonly arrays: readonly NamedArray[];
}

/** Windows of the validation text judged now and then while training, and at the end. */
const QUICK_TOKENS = 4096;
const FULL_TOKENS = 32768;
/** What `VectorAdam.state` gives. */
const STATE_NAMES = ['adam/first', 'adam/second'];
/** The initial weights take the seed itself. */
const DATA_STREAM = 0x5eed;

/** Trains one model on one text. */
export class Trainer {
  readonly model: tf.LayersModel;
  step = 0;
  readonly losses: number[] = [];
  readonly validation: LossAt[] = [];
  private readonly weights: Array<{name: string, variable: tf.Variable}>;
  private readonly optimizer = new VectorAdam();
  private readonly rng: Rng;

  constructor(readonly corpus: Corpus, readonly config: RunConfig) {
    this.model = buildGpt({...config, symbols: corpus.vocabulary.size}, config.attention, config.seed);
    this.weights = namedWeights(this.model);
    this.rng = new Rng(config.seed ^ DATA_STREAM);
  }

  get parameters(): number {
    return this.model.countParams();
  }

  get tokensPerStep(): number {
    return this.config.batch * this.config.context;
  }

  /** One step of Adam on random windows; gives the loss before it. */
  async trainStep(): Promise<number> {
    const {batch, context, steps, learningRate} = this.config;
    const windows = randomBatch(this.corpus.train, this.rng, batch, context);
    this.optimizer.setLearningRate(learningRateAt(this.step, steps, learningRate));
    const loss = this.minimize(windows);
    this.step++;
    const [value] = await loss.data();
    loss.dispose();
    this.losses.push(value);
    return value;
  }

  /** The computation of a step alone, on given windows. The loss is the caller's to dispose. */
  minimize(windows: Batch): tf.Scalar {
    const variables = this.weights.map(({variable}) => variable);
    return this.optimizer.minimize(() => batchLoss(this.model, windows, true), true, variables)!;
  }

  /** Windows of validation text; the same whenever the context is. */
  validationBatches(quick: boolean): Batch[] {
    const {context, batch} = this.config;
    const windows = Math.max(1, Math.floor((quick ? QUICK_TOKENS : FULL_TOKENS) / context));
    return fixedBatches(this.corpus.validation, windows, 2 * batch, context);
  }

  /** Validation loss on a small sample, entered in the curve. */
  async validate(): Promise<number> {
    const loss = await meanLoss(this.model, this.validationBatches(true));
    this.validation.push({step: this.step, loss});
    return loss;
  }

  async snapshot(): Promise<Snapshot> {
    const state = this.optimizer.state();
    const tensors = [
      ...this.weights.map(({name, variable}) => ({name, tensor: variable as tf.Tensor})),
      ...state.map((tensor, place) => ({name: STATE_NAMES[place], tensor})),
    ];
    const arrays = await Promise.all(tensors.map(async ({name, tensor}): Promise<NamedArray> =>
        ({name, shape: tensor.shape, data: Float32Array.from(await tensor.data<'float32'>())})));
    return {
      step: this.step, rngState: this.rng.state, losses: [...this.losses], validation: [...this.validation], arrays,
    };
  }

  /** @throws when the arrays are not those of this model. */
  restore(snapshot: Snapshot) {
    const byName = new Map(snapshot.arrays.map(array => [array.name, array]));
    const take = (name: string, shape: readonly number[]): tf.Tensor => {
      const array = byName.get(name);
      if (!array || !tf.util.arraysEqual([...array.shape], [...shape])) {
        throw new Error(`it has no ${name} of shape [${shape}]`);
      }
      return tf.tensor(array.data, [...shape], 'float32');
    };
    const values = this.weights.map(({name, variable}) => take(name, variable.shape));
    const state = snapshot.step > 0 ? STATE_NAMES.map(name => take(name, [this.parameters])) : [];
    this.weights.forEach(({variable}, place) => variable.assign(values[place]));
    this.optimizer.restore(state, snapshot.step);
    tf.dispose([...values, ...state]);
    this.step = snapshot.step;
    this.rng.state = snapshot.rngState;
    this.losses.splice(0, this.losses.length, ...snapshot.losses);
    this.validation.splice(0, this.validation.length, ...snapshot.validation);
  }

  dispose() {
    this.optimizer.dispose();
    this.model.dispose();
  }
}
