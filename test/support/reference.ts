import {philox4x32} from './philox_reference.js';

/**
 * Attention written out row by row, as plainly as possible and without the project's code, in the precision of
 * `round`: the identity gives the float64 reference, Math.fround the "plain float32 attention" of the error budget
 * (matMul, softmax, matMul and their gradients, every operation rounded to float32).
 */
export interface ReferenceProblem {
  batch: number;
  queryLength: number;
  keyLength: number;
  queryHeads: number;
  keyHeads: number;
  headSize: number;
  valueSize: number;
  layout: 'bnhd'|'bhnd';
  causal: boolean;
  causalAlignment: 'bottom-right'|'top-left';
  softmaxScale: number;
  dropoutP: number;
  seed: number;
  /** true where query i of (b, h) may see key j; absent when all may. */
  mask?: (b: number, h: number, i: number, j: number) => boolean;
}

export interface ReferenceResult {
  output: Float64Array;
  lse: Float64Array;
  dQ: Float64Array;
  dK: Float64Array;
  dV: Float64Array;
  /**
   * For each result the largest Σ|terms| of any of its elements: what its rounding errors are relative to. Where terms
   * cancel (the score gradient of a query that sees one key is exactly 0), the value itself says nothing about them.
   */
  magnitude: Record<ResultName, number>;
}

export type ResultName = 'output'|'lse'|'dQ'|'dK'|'dV';

type Round = (x: number) => number;

export const float64: Round = x => x;
export const float32: Round = Math.fround;

function indexer(p: ReferenceProblem, rows: number, heads: number, size: number) {
  return p.layout === 'bnhd' ? (b: number, n: number, h: number) => ((b * rows + n) * heads + h) * size :
                               (b: number, n: number, h: number) => ((b * heads + h) * rows + n) * size;
}

export function referenceAttention(
    p: ReferenceProblem, q: Float32Array, k: Float32Array, v: Float32Array, dO: Float32Array,
    dLse: Float32Array, round: Round): ReferenceResult {
  const {batch, queryLength, keyLength, queryHeads, keyHeads, headSize, valueSize} = p;
  const group = queryHeads / keyHeads;
  const atQ = indexer(p, queryLength, queryHeads, headSize);
  const atK = indexer(p, keyLength, keyHeads, headSize);
  const atV = indexer(p, keyLength, keyHeads, valueSize);
  const atO = indexer(p, queryLength, queryHeads, valueSize);
  const scale = round(p.softmaxScale);
  const keptScale = round(1 / (1 - p.dropoutP));
  const result: ReferenceResult = {
    output: new Float64Array(batch * queryLength * queryHeads * valueSize),
    lse: new Float64Array(batch * queryHeads * queryLength),
    dQ: new Float64Array(q.length),
    dK: new Float64Array(k.length),
    dV: new Float64Array(v.length),
    magnitude: {output: 0, lse: 0, dQ: 0, dK: 0, dV: 0},
  };
  const terms = {
    output: new Float64Array(result.output.length),
    lse: new Float64Array(result.lse.length),
    dQ: new Float64Array(q.length),
    dK: new Float64Array(k.length),
    dV: new Float64Array(v.length),
  };
  const offset = p.causalAlignment === 'bottom-right' ? keyLength - queryLength : 0;

  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < queryHeads; h++) {
      const kv = Math.floor(h / group);
      for (let i = 0; i < queryLength; i++) {
        const seen: number[] = [];
        for (let j = 0; j < keyLength; j++) {
          if ((!p.causal || j <= i + offset) && (!p.mask || p.mask(b, h, i, j))) {
            seen.push(j);
          }
        }
        const row = (b * queryHeads + h) * queryLength + i;
        const qi = atQ(b, i, h);
        const oi = atO(b, i, h);
        const scores = seen.map(j => {
          const kj = atK(b, j, kv);
          let sum = 0;
          for (let d = 0; d < headSize; d++) {
            sum = round(sum + round(q[qi + d] * k[kj + d]));
          }
          return round(sum * scale);
        });
        const max = scores.reduce((m, s) => s > m || Number.isNaN(s) ? s : m, -Infinity);
        if (max === -Infinity) {
          result.lse[row] = -Infinity;
          continue;
        }
        const exps = scores.map(s => round(Math.exp(round(s - max))));
        const total = exps.reduce((sum, e) => round(sum + e), 0);
        result.lse[row] = round(max + round(Math.log(total)));
        terms.lse[row] = Math.abs(max) + Math.abs(Math.log(total));
        const weights = exps.map(e => round(e / total));
        const keep = seen.map(j => {
          if (p.dropoutP === 0) {
            return 1;
          }
          const words = philox4x32([Math.floor(j / 4), i, h, b], p.seed);
          return words[j % 4] < Math.round(p.dropoutP * 2 ** 32) ? 0 : keptScale;
        });
        // dWeights: gradient of the softmax's result; its dot product with the weights closes the softmax gradient.
        const dWeights = seen.map((j, n) => {
          const vj = atV(b, j, kv);
          let sum = 0;
          for (let d = 0; d < valueSize; d++) {
            sum = round(sum + round(dO[oi + d] * v[vj + d]));
          }
          return round(sum * keep[n]);
        });
        let dot = 0;
        for (let n = 0; n < seen.length; n++) {
          dot = round(dot + round(weights[n] * dWeights[n]));
        }
        seen.forEach((j, n) => {
          const kj = atK(b, j, kv);
          const vj = atV(b, j, kv);
          const dropped = round(weights[n] * keep[n]);
          const dScore = round(round(weights[n] * round(round(dWeights[n] - dot) + dLse[row])) * scale);
          const dScoreTerms =
              Math.abs(scale) * weights[n] * (Math.abs(dWeights[n]) + Math.abs(dot) + Math.abs(dLse[row]));
          for (let d = 0; d < valueSize; d++) {
            terms.output[oi + d] += dropped * Math.abs(v[vj + d]);
            terms.dV[vj + d] += dropped * Math.abs(dO[oi + d]);
            result.output[oi + d] = round(result.output[oi + d] + round(dropped * v[vj + d]));
            result.dV[vj + d] = round(result.dV[vj + d] + round(dropped * dO[oi + d]));
          }
          for (let d = 0; d < headSize; d++) {
            terms.dQ[qi + d] += dScoreTerms * Math.abs(k[kj + d]);
            terms.dK[kj + d] += dScoreTerms * Math.abs(q[qi + d]);
            result.dQ[qi + d] = round(result.dQ[qi + d] + round(dScore * k[kj + d]));
            result.dK[kj + d] = round(result.dK[kj + d] + round(dScore * q[qi + d]));
          }
        });
      }
    }
  }
  for (const name of Object.keys(terms) as ResultName[]) {
    result.magnitude[name] = terms[name].reduce((most, x) => Number.isFinite(x) ? Math.max(most, x) : most, 0);
  }
  return result;
}
