import {float64} from './precision.js';
import type {Precision} from './precision.js';
import {Magnitudes, zeros} from './reference_magnitude.js';
import type {ResultName, Results} from './reference_magnitude.js';
import {broadcastIndex} from './reference_problem.js';
import type {ReferenceProblem} from './reference_problem.js';
import {ReferenceRow} from './reference_row.js';
import type {ReferenceInputs} from './reference_row.js';

export {float16, float32, float64} from './precision.js';
export type {ResultName} from './reference_magnitude.js';
export type {ReferenceProblem} from './reference_problem.js';
export type {ReferenceInputs} from './reference_row.js';

export interface ReferenceResult extends Omit<Results, 'dBias'|'dSinks'> {
  /** Present with a bias. */
  dBias?: Float64Array;
  /** Present with sinks. */
  dSinks?: Float64Array;
  /**
   * For each result, what the rounding errors of its elements are relative to: see Magnitudes. Where terms cancel (the
   * score gradient of a query that sees one key is exactly 0), the value itself says nothing about them. Absent from
   * results of another precision than float64.
   */
  magnitude?: Record<ResultName, number>;
}

/** Adds what one row of scores gives to each result. */
function addRow(p: ReferenceProblem, {q, k, v, dO, dLse}: ReferenceInputs, row: ReferenceRow, results: Results) {
  const {b, h, i, at, qi, oi, count, seen, weights, kept, dWeights, slopes, closing} = row;
  const {round, store, addScaled} = row.precision;
  const scale = round(p.softmaxScale);
  const atBias = p.biasShape && broadcastIndex(p.biasShape);
  results.lse[at] = round(row.max + round(Math.log(row.total)));
  for (let n = 0; n < count; n++) {
    const kj = row.kj[seen[n]];
    const vj = row.vj[seen[n]];
    const dropped = round(weights[n] * kept[n]);
    const dScore = round(weights[n] * round(round(dWeights[n] - closing) + dLse[at]));
    const dProduct = round(round(dScore * slopes[n]) * scale);
    addScaled(results.output, oi, store(dropped), v, vj, p.valueSize);
    addScaled(results.dV, vj, store(dropped), dO, oi, p.valueSize);
    addScaled(results.dQ, qi, store(dProduct), k, kj, p.headSize);
    addScaled(results.dK, kj, store(dProduct), q, qi, p.headSize);
    if (atBias) {
      const place = atBias(b, h, i, seen[n]);
      results.dBias[place] = round(results.dBias[place] + dScore);
    }
  }
  if (row.sink !== -Infinity) {
    results.dSinks[h] = round(results.dSinks[h] + round(row.sinkWeight * round(dLse[at] - closing)));
  }
}

/**
 * Attention written out row by row, as plainly as possible and without the project's code, in the given precision:
 * float64 is the reference, float32 the "plain float32 attention" of the error budget (matMul, softmax, matMul and
 * their gradients, every operation rounded to float32).
 */
export function referenceAttention(
    p: ReferenceProblem, inputs: ReferenceInputs, precision: Precision): ReferenceResult {
  const results = zeros(p, inputs);
  const magnitudes = precision === float64 ? new Magnitudes(p, inputs) : undefined;
  const row = new ReferenceRow(p, inputs, precision);
  for (let b = 0; b < p.batch; b++) {
    for (let h = 0; h < p.queryHeads; h++) {
      row.enterHead(b, h);
      for (let i = 0; i < p.queryLength; i++) {
        if (!row.compute(i)) {
          results.lse[row.at] = -Infinity;
          continue;
        }
        addRow(p, inputs, row, results);
        magnitudes?.add(row);
      }
    }
  }
  const {dBias, dSinks, ...always} = results;
  return {
    ...always, ...p.biasShape && {dBias}, ...p.sinks && {dSinks}, ...magnitudes && {magnitude: magnitudes.largest()},
  };
}
