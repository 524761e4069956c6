import {broadcastIndex} from './reference_problem.js';
import type {ReferenceProblem} from './reference_problem.js';
import type {ReferenceInputs, ReferenceRow} from './reference_row.js';

export type ResultName = 'output'|'lse'|'dQ'|'dK'|'dV'|'dBias'|'dSinks';
/** dBias is in the bias' own shape, summed over the axes that it is broadcast along; dSinks is [Hq]. */
export type Results = Record<ResultName, Float64Array>;

export function zeros(p: ReferenceProblem, {q, k, v, dO, dLse}: ReferenceInputs): Results {
  return {
    output: new Float64Array(dO.length), lse: new Float64Array(dLse.length),
    dQ: new Float64Array(q.length), dK: new Float64Array(k.length), dV: new Float64Array(v.length),
    dBias: new Float64Array(p.biasShape?.reduce((a, b) => a * b, 1) ?? 0),
    dSinks: new Float64Array(p.sinks ? p.queryHeads : 0),
  };
}

/** Σ_d |a[at + d]·b[bt + d]|. */
function dotTerms(a: Float32Array, at: number, b: Float32Array, bt: number, size: number): number {
  let sum = 0;
  for (let d = 0; d < size; d++) {
    sum += Math.abs(a[at + d] * b[bt + d]);
  }
  return sum;
}

/** terms[to + d] += factor·|row[from + d]|, variances[to + d] += variance·row[from + d]². */
function addRow(
    terms: Float64Array, variances: Float64Array, to: number, factor: number, variance: number, row: Float32Array,
    from: number, size: number) {
  for (let d = 0; d < size; d++) {
    const x = row[from + d];
    terms[to + d] += factor * Math.abs(x);
    variances[to + d] += variance * x * x;
  }
}

/**
 * What the rounding errors of each result are relative to, measured on float64 rows. For each element, two parts:
 * Σ|terms| of its own last sum; and a quarter of the standard deviation that the dot products of each pair, QKᵀ and
 * dO·Vᵀ, bring into it to first order, if each had the deviation Σ|its terms|. (A float32 dot product of 100 numbers
 * deviates by a third of 2⁻²⁴·Σ|terms|, and the error budget allows 4·2⁻²⁴ of the magnitude: so, three deviations.)
 *
 * The second part matters where few rows, or few keys with most of the weight, decide the largest error: whether plain
 * attention or a kernel that sums in another order comes closer is then a matter of chance. Of 1000 cases of the grid,
 * plain attention that sums D backwards failed 32, and five with this part; what the case table allows grows by a
 * fifth in the median.
 */
export class Magnitudes {
  private readonly terms: Results;
  private readonly variances: Results;
  private readonly scoreTerms: Float64Array;
  private readonly dWeightTerms: Float64Array;

  constructor(private readonly p: ReferenceProblem, private readonly x: ReferenceInputs) {
    this.terms = zeros(p, x);
    this.variances = zeros(p, x);
    this.scoreTerms = new Float64Array(p.keyLength);
    this.dWeightTerms = new Float64Array(p.keyLength);
  }

  add(row: ReferenceRow) {
    const {p, terms, variances, scoreTerms, dWeightTerms} = this;
    const {q, k, v, dO, dLse} = this.x;
    const {b, h, i, at, qi, oi, count, seen, scores, weights, kept, dWeights, slopes, closing} = row;
    const atBias = p.biasShape && broadcastIndex(p.biasShape);
    const scale = Math.abs(p.softmaxScale);
    let lseVariance = 0;
    let closingVariance = 0;
    for (let n = 0; n < count; n++) {
      // Infinite scores leave no error where their weight is 0 or the softcap flattens them.
      const product = slopes[n] === 0 ? 0 : scale * slopes[n] * dotTerms(q, qi, k, row.kj[seen[n]], p.headSize);
      scoreTerms[n] = weights[n] === 0 ? 0 : product + Math.abs(scores[n]);
      dWeightTerms[n] = kept[n] * dotTerms(dO, oi, v, row.vj[seen[n]], p.valueSize);
      lseVariance += (weights[n] * scoreTerms[n]) ** 2;
      closingVariance +=
          weights[n] ** 2 * ((scoreTerms[n] * (dWeights[n] - closing)) ** 2 + dWeightTerms[n] ** 2);
    }
    terms.lse[at] = Math.abs(row.max) + Math.abs(Math.log(row.total));
    variances.lse[at] = lseVariance;
    for (let n = 0; n < count; n++) {
      const kj = row.kj[seen[n]];
      const vj = row.vj[seen[n]];
      const w = weights[n];
      const dropped = w * kept[n];
      // w moves by w·(δscore − Σ weights·δscores).
      const ofWeight = w * w * (lseVariance + (1 - 2 * w) * scoreTerms[n] ** 2);
      const change = dWeights[n] - closing + dLse[at];
      const dScore = w * (Math.abs(dWeights[n]) + Math.abs(closing) + Math.abs(dLse[at]));
      const ofDScore = ofWeight * change ** 2 + w * w * (dWeightTerms[n] ** 2 + closingVariance);
      const slope = (2 - slopes[n]) * scale; // of the softcap's 1 − tanh²
      addRow(terms.output, variances.output, oi, dropped, ofWeight * kept[n] ** 2, v, vj, p.valueSize);
      addRow(terms.dV, variances.dV, vj, dropped, ofWeight * kept[n] ** 2, dO, oi, p.valueSize);
      addRow(terms.dQ, variances.dQ, qi, dScore * slope, ofDScore * slope ** 2, k, kj, p.headSize);
      addRow(terms.dK, variances.dK, kj, dScore * slope, ofDScore * slope ** 2, q, qi, p.headSize);
      if (atBias) {
        const place = atBias(b, h, i, seen[n]);
        terms.dBias[place] += dScore;
        variances.dBias[place] += ofDScore;
      }
    }
    if (row.sink !== -Infinity) {
      const s = row.sinkWeight;
      terms.dSinks[h] += s * (Math.abs(dLse[at]) + Math.abs(closing));
      variances.dSinks[h] += s * s * (lseVariance * (dLse[at] - closing) ** 2 + closingVariance);
    }
  }

  /** The largest of each result. Elements that NaN or ∞ reaches say nothing. */
  largest(): Record<ResultName, number> {
    const ofOne = (name: ResultName) => this.terms[name].reduce((most, term, n) => {
      const magnitude = term + Math.sqrt(this.variances[name][n]) / 4;
      return Number.isFinite(magnitude) ? Math.max(most, magnitude) : most;
    }, 0);
    const names = Object.keys(this.terms) as ResultName[];
    return Object.fromEntries(names.map(name => [name, ofOne(name)])) as Record<ResultName, number>;
  }
}
