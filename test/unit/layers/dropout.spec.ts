import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';

import {distance} from './keras_fixture.js';
import {scopeEachSpec} from './scope.js';
import {spy} from './spy_attention.js';

const CONFIG = {numHeads: 2, keyDim: 4, kernelInitializer: tf.initializers.glorotUniform({seed: 11})};
const input = () => tf.randomNormal([2, 6, 8], 0, 1, 'float32', 3);

describe('Dropout of FlashMultiHeadAttention', () => {
  scopeEachSpec();

  it('is off outside training', () => {
    const x = input();
    const plain = new FlashMultiHeadAttention(CONFIG).apply(x) as tf.Tensor;
    const layer = spy({...CONFIG, dropout: 0.5});
    expect(distance(layer.apply(x) as tf.Tensor, plain)).toBe(0);
    expect(distance(layer.apply(x, {training: false}) as tf.Tensor, plain)).toBe(0);
    const model = tf.sequential({layers: [spy({...CONFIG, dropout: 0.5, inputShape: [6, 8]})]});
    expect(distance(model.predict(x) as tf.Tensor, plain)).toBe(0);
    expect(layer.last.dropoutP).toBe(0);
  });

  it('is on in training, and model.fit trains', async () => {
    const x = input();
    const layer = spy({...CONFIG, dropout: 0.5});
    expect(distance(layer.apply(x, {training: true}) as tf.Tensor, layer.apply(x) as tf.Tensor)).toBeGreaterThan(1e-3);
    const fitted = spy({...CONFIG, dropout: 0.5, inputShape: [6, 8]});
    const model = tf.sequential({layers: [fitted]});
    model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
    await model.fit(x, x, {epochs: 1, verbose: 0});
    expect(fitted.seen.some(({dropoutP}) => dropoutP === 0.5)).toBeTrue();
    model.optimizer.dispose();
  });

  it('keeps the mean', () => {
    const x = input();
    const layer = new FlashMultiHeadAttention({...CONFIG, dropout: 0.3, seed: 1});
    const expected = layer.apply(x) as tf.Tensor;
    const runs = 300;
    const samples = tf.stack(Array.from({length: runs}, () => layer.apply(x, {training: true}) as tf.Tensor));
    const {mean, variance} = tf.moments(samples, 0);
    // Of 96 outputs, each a mean of 300: five standard errors are exceeded by chance once in 20000 fixtures.
    const errors = tf.div(tf.abs(tf.sub(mean, expected)), tf.sqrt(tf.div(variance, runs)));
    expect(tf.max(errors).dataSync()[0]).toBeLessThan(5);
    expect(tf.min(variance).dataSync()[0]).toBeGreaterThan(0);
    expect(distance(mean, expected)).toBeLessThan(0.2);
  });

  it('drops others at each call; a seed makes the series repeatable, and another seed another series', () => {
    const x = input();
    const series = (seed?: number) => {
      const layer = new FlashMultiHeadAttention({...CONFIG, dropout: 0.5, seed});
      return [0, 1, 2].map(() => layer.apply(x, {training: true}) as tf.Tensor);
    };
    const [a, b, c, free] = [series(42), series(42), series(43), series()];
    for (let i = 0; i < 3; i++) {
      expect(distance(a[i], b[i])).toBe(0);
      expect(distance(a[i], free[i])).toBeGreaterThan(0);
      for (let j = 0; j < 3; j++) {
        // Also with the calls of a neighbouring seed: 43 does not start where 42 goes on.
        expect(distance(a[i], c[j])).toBeGreaterThan(0);
        if (i !== j) {
          expect(distance(a[i], a[j])).toBeGreaterThan(0);
          expect(distance(free[i], free[j])).toBeGreaterThan(0);
        }
      }
    }
  });

  it('gives the op seeds in its range', () => {
    const layer = spy({...CONFIG, dropout: 0.5, seed: 2 ** 53 - 1});
    for (let i = 0; i < 20; i++) {
      layer.apply(input(), {training: true});
    }
    const seeds = layer.seen.map(({seed}) => seed!);
    expect(new Set(seeds).size).toBe(20);
    expect(seeds.every(seed => Number.isSafeInteger(seed) && seed >= 0)).toBeTrue();
    expect(Math.max(...seeds)).toBeGreaterThan(2 ** 48);
  });

  it('has the gradient of what was dropped', () => {
    // The output is linear in the output kernel and the loss quadratic, so a central difference quotient is exact but
    // for rounding. The same seed drops the same weights in each of the three layers.
    const x = input();
    const run = (shift?: (kernel: tf.Tensor) => tf.Tensor) => {
      const layer = new FlashMultiHeadAttention({...CONFIG, dropout: 0.5, seed: 9});
      layer.build([2, 6, 8]);
      if (shift) {
        layer.setWeights(layer.getWeights().map((weight, i) => i === 6 ? shift(weight) : weight.clone()));
      }
      const kernel = layer.weights[6].read() as tf.Variable;
      const loss = () => tf.sum(tf.square(layer.call(x, {training: true}))) as tf.Scalar;
      return {kernel, loss};
    };
    const {kernel, loss} = run();
    const gradient = tf.variableGrads(loss, [kernel]).grads[kernel.name];
    const step = 2 ** -8;
    const [up, down] = [step, -step].map(s => run(w => tf.add(w, tf.mul(s, gradient))).loss().dataSync()[0]);
    const slope = (up - down) / (2 * step);
    const squared = tf.sum(tf.square(gradient)).dataSync()[0];
    expect(squared).toBeGreaterThan(1);
    expect(Math.abs(slope - squared) / squared).toBeLessThan(1e-4);
  });
});
