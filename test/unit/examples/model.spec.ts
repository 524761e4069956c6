import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

import {ATTENTION_KINDS} from '../../../examples/gpt/attention.js';
import type {RunConfig} from '../../../examples/gpt/config.js';
import {defaultConfig, problemWith} from '../../../examples/gpt/config.js';
import {batchLoss, meanLoss} from '../../../examples/gpt/loss.js';
import {buildGpt, namedWeights} from '../../../examples/gpt/model.js';
import {learningRateAt} from '../../../examples/gpt/optimizer.js';
import {Rng} from '../../../examples/gpt/rng.js';
import {sampleText} from '../../../examples/gpt/sample.js';
import {splitText} from '../../../examples/gpt/text.js';
import {Trainer} from '../../../examples/gpt/trainer.js';
import {train} from '../../../examples/gpt/training_loop.js';

const SHAPE = {symbols: 13, context: 12, layers: 2, heads: 2, width: 16};
const CONFIG: RunConfig =
    {attention: 'flash', steps: 8, context: 12, layers: 2, heads: 2, width: 16, batch: 3, learningRate: 0.01, seed: 5};
const TEXT = 'It was the best of times, it was the worst of times.\n'.repeat(60);

async function collect(trainer: Trainer): Promise<number[]> {
  for await (const {step, loss} of train(trainer)) {
    expect(trainer.losses[step - 1]).toBe(loss);
  }
  return [...trainer.losses];
}

/** The head starts at 0, where every input gives the same logits. */
function randomHead(model: tf.LayersModel) {
  const {variable} = namedWeights(model).find(({name}) => name.startsWith('head'))!;
  tf.tidy(() => variable.assign(tf.randomNormal(variable.shape, 0, 1, 'float32', 9)));
}

describe('buildGpt', () => {
  beforeEach(async () => {
    await tf.setBackend('cpu');
  });

  for (const attention of ATTENTION_KINDS) {
    it(`maps [B,T] to logits [B,T,symbols] for any T up to the context, with ${attention} attention`, () => {
      const model = buildGpt(SHAPE, attention, 1);
      for (const length of [1, 5, 12]) {
        const logits = model.apply(tf.zeros([3, length], 'int32')) as tf.Tensor;
        expect(logits.shape).toEqual([3, length, 13]);
        logits.dispose();
      }
      model.dispose();
    });

    it(`never lets a later symbol change an earlier logit, with ${attention} attention`, () => {
      const model = buildGpt(SHAPE, attention, 1);
      randomHead(model);
      const ids = Int32Array.from({length: 12}, (_, n) => n);
      const logitsOf = (changedPlace: number) => tf.tidy(() => {
        const changed = Int32Array.from(ids);
        changed[changedPlace] = 12;
        return (model.apply(tf.tensor2d(changed, [1, 12], 'int32')) as tf.Tensor3D).arraySync()[0];
      });
      const unchanged = logitsOf(11).slice(0, 11);
      for (const place of [1, 6, 10]) {
        const logits = logitsOf(place);
        expect(logits.slice(0, place)).withContext(`before ${place}`).toEqual(unchanged.slice(0, place));
        expect(logits[place]).withContext(`at ${place}`).not.toEqual(unchanged[place]);
      }
      model.dispose();
    });
  }

  it('starts with every symbol equally likely', async () => {
    const model = buildGpt(SHAPE, 'flash', 1);
    const ids = Int32Array.from({length: 12}, (_, n) => n);
    const loss = await meanLoss(model, [{inputs: ids, targets: ids, windows: 1, context: 12}]);
    expect(loss).toBeCloseTo(Math.log(13), 5);
    model.dispose();
  });

  it('has the same weights under the same names for both kinds of attention, and others for another seed', () => {
    const [flash, standard, other] =
        [buildGpt(SHAPE, 'flash', 1), buildGpt(SHAPE, 'standard', 1), buildGpt(SHAPE, 'flash', 2)];
    const values = (model: tf.LayersModel) =>
        namedWeights(model).map(({name, variable}) => [name, variable.shape, [...variable.dataSync()]]);
    expect(values(standard)).toEqual(values(flash));
    expect(values(other)).not.toEqual(values(flash));
    expect(new Set(namedWeights(flash).map(({name}) => name)).size).toBe(namedWeights(flash).length);
    [flash, standard, other].forEach(model => model.dispose());
  });

  it('has gradients that finite differences confirm', () => {
    const model = buildGpt(SHAPE, 'flash', 1);
    randomHead(model);
    const rng = new Rng(1);
    const draw = () => Int32Array.from({length: 24}, () => rng.below(13));
    const batch = {inputs: draw(), targets: draw(), windows: 2, context: 12};
    const weights = namedWeights(model);
    const {grads, value} = tf.variableGrads(() => batchLoss(model, batch, true), weights.map(w => w.variable));
    value.dispose();
    for (const {name, variable} of weights) {
      const at = rng.below(variable.size);
      const original = variable.dataSync().slice();
      const lossWith = (change: number) => tf.tidy(() => {
        const values = original.slice();
        values[at] += change;
        variable.assign(tf.tensor(values, variable.shape));
        return batchLoss(model, batch, true).dataSync()[0];
      });
      const numeric = (lossWith(0.01) - lossWith(-0.01)) / 0.02;
      lossWith(0);
      expect(Math.abs(grads[variable.name].dataSync()[at] - numeric)).withContext(name).toBeLessThan(2e-3);
    }
    tf.dispose(grads);
    model.dispose();
  });
});

describe('learningRateAt', () => {
  it('climbs to the peak and falls to a twentieth', () => {
    const rates = Array.from({length: 1000}, (_, step) => learningRateAt(step, 1000, 1));
    expect(rates[0]).toBeCloseTo(0.02, 10);
    expect(Math.max(...rates)).toBe(1);
    expect(rates.indexOf(1)).toBe(49);
    expect(rates[999]).toBeCloseTo(0.05, 3);
    expect(learningRateAt(0, 1, 1)).toBe(1);
  });
});

describe('the default configurations', () => {
  it('can be built', () => {
    expect([true, false].map(onGpu => problemWith(defaultConfig(onGpu)))).toEqual([undefined, undefined]);
    expect(problemWith({...defaultConfig(false), heads: 7})).toMatch(/heads/);
    expect(problemWith({...defaultConfig(false), width: 1024, heads: 1})).toMatch(/256/);
  });
});

for (const backend of ['cpu', 'wasm']) {
  describe(`Trainer on ${backend}`, () => {
    const corpus = splitText(TEXT);

    beforeEach(async () => {
      await tf.setBackend(backend);
    });

    it('learns, and computes the same losses again for the same seed', async () => {
      const [first, second, other] = [CONFIG, CONFIG, {...CONFIG, seed: 6}].map(config => new Trainer(corpus, config));
      const losses = await collect(first);
      expect(losses.length).toBe(8);
      expect(losses[7]).toBeLessThan(losses[0]);
      expect(first.validation.length).toBe(9);
      expect(await collect(second)).toEqual(losses);
      expect(second.validation).toEqual(first.validation);
      expect(await collect(other)).not.toEqual(losses);
      [first, second, other].forEach(trainer => trainer.dispose());
    });

    it('has the same losses with flash and with standard attention, step for step', async () => {
      const [flash, standard] = ATTENTION_KINDS.map(attention => new Trainer(corpus, {...CONFIG, attention}));
      const [ours, theirs] = [await collect(flash), await collect(standard)];
      ours.forEach((loss, n) => expect(Math.abs(loss - theirs[n])).withContext(`step ${n + 1}`).toBeLessThan(1e-4));
      [flash, standard].forEach(trainer => trainer.dispose());
    });

    it('goes on from a snapshot as if it had never stopped', async () => {
      const whole = new Trainer(corpus, CONFIG);
      const losses = await collect(whole);
      const first = new Trainer(corpus, CONFIG);
      for await (const {step} of train(first)) {
        if (step === 3) {
          break;
        }
      }
      const snapshot = await first.snapshot();
      expect(snapshot.step).toBe(3);
      first.dispose();
      const second = new Trainer(corpus, CONFIG);
      second.restore(JSON.parse(JSON.stringify({...snapshot, arrays: []})) && snapshot);
      expect(await collect(second)).toEqual(losses);
      expect(second.validation).toEqual(whole.validation);
      const weights = (trainer: Trainer) => namedWeights(trainer.model).map(({variable}) => [...variable.dataSync()]);
      expect(weights(second)).toEqual(weights(whole));
      [whole, second].forEach(trainer => trainer.dispose());
    });

    it('refuses a snapshot of another model', async () => {
      const trainer = new Trainer(corpus, CONFIG);
      await trainer.trainStep();
      const snapshot = await trainer.snapshot();
      const wider = new Trainer(corpus, {...CONFIG, width: 32});
      expect(() => wider.restore(snapshot)).toThrowError(/embedding/);
      [trainer, wider].forEach(t => t.dispose());
    });

    it('leaves no tensor behind', async () => {
      const before = tf.memory().numTensors;
      const trainer = new Trainer(corpus, CONFIG);
      await trainer.trainStep();
      const during = tf.memory().numTensors;
      await trainer.trainStep();
      await trainer.validate();
      trainer.restore(await trainer.snapshot());
      expect(tf.memory().numTensors).toBe(during);
      trainer.dispose();
      expect(tf.memory().numTensors).toBe(before);
    });

    it('makes up text that the seed decides', async () => {
      const trainer = new Trainer(corpus, CONFIG);
      await trainer.trainStep();
      const write = async (seed: number) => {
        let text = '';
        const {model} = trainer;
        for await (const symbol of sampleText(model, corpus.vocabulary, 12, 'It', new Rng(seed), {length: 30})) {
          text += symbol;
        }
        return text;
      };
      const before = tf.memory().numTensors;
      const text = await write(1);
      expect(text.length).toBe(30);
      expect(await write(1)).toBe(text);
      expect(await write(2)).not.toBe(text);
      expect(tf.memory().numTensors).toBe(before);
      trainer.dispose();
    });
  });
}
