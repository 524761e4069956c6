import * as tf from '@tensorflow/tfjs';

import {compareSteps} from '../../../examples/gpt/compare_steps.js';
import {median, peakBytes} from '../../../examples/gpt/measure.js';
import {lengthPlot, lossPlot} from '../../../examples/gpt/plots.js';
import {sweepLengths} from '../../../examples/gpt/sweep_lengths.js';
import type {SweepPoint} from '../../../examples/gpt/sweep_lengths.js';
import {splitText} from '../../../examples/gpt/text.js';

async function pointsOf(options: Partial<Parameters<typeof sweepLengths>[0]>): Promise<SweepPoint[]> {
  const points: SweepPoint[] = [];
  const all = {lengths: [16, 64], heads: 2, headSize: 8, seconds: 60, mostBytes: 2 ** 30, ...options};
  for await (const point of sweepLengths(all)) {
    points.push(point);
  }
  return points;
}

describe('measuring', () => {
  beforeEach(async () => {
    await tf.setBackend('cpu');
  });

  it('takes the median', () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([5])]).toEqual([2, 2.5, 5]);
  });

  it('sees the most that is held at once, and not what was there before', async () => {
    const x = tf.ones([1000]);
    const peak = await peakBytes(() => tf.tidy(() => [tf.sum(tf.add(tf.add(x, 1), x))]));
    expect(peak).toBeGreaterThanOrEqual(8000);
    expect(peak).toBeLessThan(8100);
    expect(await peakBytes(() => tf.tidy(() => [tf.sum(x)]))).toBeLessThan(100);
    x.dispose();
  });

  it('finds memory that grows with N for flash and with N² for standard attention', async () => {
    const before = tf.memory().numTensors;
    const points = await pointsOf({});
    expect(points.map(({length, kind}) => `${kind} ${length}`))
        .toEqual(['flash 16', 'standard 16', 'flash 64', 'standard 64']);
    expect(points.every(({milliseconds}) => milliseconds! > 0)).toBeTrue();
    const growth = (kind: string) => {
      const [small, large] = points.filter(point => point.kind === kind).map(point => point.peakBytes!);
      return large / small;
    };
    expect(growth('flash')).toBeCloseTo(4, 0);
    expect(growth('standard')).toBeGreaterThan(6);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('leaves out what would take too much time or memory, and says so', async () => {
    const [, , , tooLarge] = await pointsOf({mostBytes: 100_000});
    expect(tooLarge.milliseconds).toBeUndefined();
    expect(tooLarge.note).toMatch(/^left out: would need about/);
    const late = await pointsOf({lengths: [16, 1 << 20], seconds: 5});
    expect(late.slice(2).every(({note}) => /would take about \d+ s/.test(note!))).toBeTrue();
  });

  it('compares the training step without touching any other model', async () => {
    const before = tf.memory().numTensors;
    const corpus = splitText('some words to learn from, again and again. '.repeat(40));
    const costs = await compareSteps(corpus, {
      attention: 'flash', steps: 1, context: 32, layers: 1, heads: 2, width: 16, batch: 2, learningRate: 0.01, seed: 1,
    }, 1);
    expect(costs.flash.milliseconds).toBeGreaterThan(0);
    expect(costs.standard.peakBytes).toBeGreaterThan(costs.flash.peakBytes);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('plots', () => {
  it('are SVG with a mark for every curve', async () => {
    const svg = await lossPlot([4, 3, 2.5], [{step: 0, loss: 4.4}, {step: 3, loss: 2.4}], 2.41);
    expect(svg).toMatch(/^<svg/);
    for (const name of ['training', 'validation', 'bigram, validation']) {
      expect(svg).toContain(`>${name}</text>`);
    }
    expect(svg).not.toContain('NaN');
  });

  it('show a quantity by length, without the points that were left out', async () => {
    const points: SweepPoint[] = [
      {length: 64, kind: 'flash', milliseconds: 1, peakBytes: 2 ** 20},
      {length: 64, kind: 'standard', milliseconds: 2, peakBytes: 2 ** 22},
      {length: 128, kind: 'flash', milliseconds: 4, peakBytes: 2 ** 21},
      {length: 128, kind: 'standard', note: 'left out'},
    ];
    for (const quantity of ['milliseconds', 'peakBytes'] as const) {
      const svg = await lengthPlot(points, quantity);
      expect(svg).toMatch(/^<svg/);
      expect(svg).toContain('>128</text>');
      expect(svg).not.toContain('NaN');
    }
  });
});
