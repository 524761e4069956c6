import uPlot from 'uplot';

import type {Trainer} from '../gpt/trainer.js';

const HEIGHT = 320;

/** The loss as it comes: training, validation, and the bigram model's as a level line. */
export class LivePlot {
  private readonly plot: uPlot;

  constructor(private readonly element: HTMLElement) {
    this.plot = new uPlot({
      width: element.clientWidth || 800,
      height: HEIGHT,
      scales: {x: {time: false}},
      axes: [{label: 'step'}, {label: 'loss (nats per symbol)'}],
      series: [
        {label: 'step'},
        {label: 'training', stroke: '#9ecae1', width: 1},
        {label: 'validation', stroke: '#1f77b4', width: 2, spanGaps: true, points: {show: true}},
        {label: 'bigram, validation', stroke: '#7f7f7f', dash: [6, 4], points: {show: false}},
      ],
    }, [[], [], [], []], element);
    new ResizeObserver(() => this.plot.setSize({width: element.clientWidth, height: HEIGHT})).observe(element);
  }

  draw({losses, validation}: Trainer, bigramLoss: number) {
    const checks = new Map(validation.map(({step, loss}) => [step, loss]));
    const steps = Array.from({length: losses.length + 1}, (_, step) => step);
    this.plot.setData([
      steps,
      steps.map(step => step === 0 ? null : losses[step - 1]),
      steps.map(step => checks.get(step) ?? null),
      steps.map(() => bigramLoss),
    ]);
    this.element.dataset.points = String(losses.length);
  }
}
