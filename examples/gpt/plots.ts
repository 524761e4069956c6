import type {AttentionKind} from './attention.js';
import {toSvg} from './svg.js';
import type {SweepPoint} from './sweep_lengths.js';
import type {LossAt} from './trainer.js';

const WIDTH = 560;
const HEIGHT = 300;
const MOST_POINTS = 500;
const COLOURS: Record<AttentionKind, string> = {flash: '#1f77b4', standard: '#d62728'};

/** Means over equal stretches of steps, so that the curve stays readable and the file small. */
function thinned(losses: readonly number[]): LossAt[] {
  const stretch = Math.max(1, Math.ceil(losses.length / MOST_POINTS));
  const points: LossAt[] = [];
  for (let first = 0; first < losses.length; first += stretch) {
    const part = losses.slice(first, first + stretch);
    points.push({step: first + part.length, loss: part.reduce((sum, loss) => sum + loss, 0) / part.length});
  }
  return points;
}

/** Training and validation loss by step, with the bigram model's as a line. */
export function lossPlot(
    losses: readonly number[], validation: readonly LossAt[], bigramLoss: number): Promise<string> {
  const named = (points: readonly LossAt[], curve: string) => points.map(point => ({...point, curve}));
  const last = Math.max(1, losses.length);
  const bigram = [{step: 0, loss: bigramLoss}, {step: last, loss: bigramLoss}];
  const values = [
    ...named(thinned(losses), 'training'), ...named(validation, 'validation'), ...named(bigram, 'bigram, validation'),
  ];
  const domain = ['training', 'validation', 'bigram, validation'];
  return toSvg({
    width: WIDTH,
    height: HEIGHT,
    data: {values},
    mark: {type: 'line', strokeWidth: 2},
    encoding: {
      x: {field: 'step', type: 'quantitative', title: 'step'},
      y: {field: 'loss', type: 'quantitative', title: 'loss (nats per symbol)', scale: {zero: false}},
      color: {
        field: 'curve', type: 'nominal', title: null, sort: domain,
        scale: {domain, range: ['#9ecae1', COLOURS.flash, '#7f7f7f']},
      },
      strokeDash: {
        field: 'curve', type: 'nominal', title: null, sort: domain,
        scale: {domain, range: [[1, 0], [1, 0], [6, 4]]},
      },
    },
  });
}

export type Quantity = 'milliseconds'|'peakBytes';
const AXES: Record<Quantity, {title: string, scale: number}> = {
  milliseconds: {title: 'time (ms)', scale: 1},
  peakBytes: {title: 'peak memory (MiB)', scale: 2 ** -20},
};

/** One measured quantity against sequence length, both axes logarithmic, a line for each kind of attention. */
export function lengthPlot(points: readonly SweepPoint[], quantity: Quantity): Promise<string> {
  const {title, scale} = AXES[quantity];
  const values = points.filter(point => point[quantity] !== undefined).map(point => ({
    length: point.length, value: point[quantity]! * scale, kind: point.kind,
  }));
  const lengths = [...new Set(values.map(({length}) => length))];
  return toSvg({
    width: WIDTH,
    height: HEIGHT,
    data: {values},
    mark: {type: 'line', point: true, strokeWidth: 2},
    encoding: {
      x: {
        field: 'length', type: 'quantitative', title: 'sequence length', axis: {values: lengths, format: 'd'},
        scale: {type: 'log', base: 2, domain: [lengths[0] ?? 1, lengths[lengths.length - 1] ?? 2], nice: false},
      },
      y: {field: 'value', type: 'quantitative', title, scale: {type: 'log', base: 10}, axis: {format: '~g'}},
      color: {
        field: 'kind', type: 'nominal', title: null,
        scale: {domain: Object.keys(COLOURS), range: Object.values(COLOURS)},
      },
    },
  });
}
