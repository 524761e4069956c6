import type {Problem} from '../../op/problem.js';

import {addWeightedRows, Dropout, multiplyTransposed, packRows, TILE_KEYS, TILE_QUERIES, Visibility} from './tiles.js';
import type {View} from './tiles.js';

/**
 * Attention with the online softmax of FlashAttention-2 (Dao, 2023, algorithm 1), float64 inside: for each tile of
 * queries, walk the tiles of keys with a running maximum, denominator and unnormalised output.
 * Writes every element of `output` and of `lse` and `lseTail` [B,Hq,Nq].
 */
export function attentionForward(
    problem: Problem, q: View, k: View, v: View, mask: Uint8Array|undefined, output: View, lse: Float32Array,
    lseTail: Float32Array) {
  const {batch, queryHeads, keyHeads, queryLength, valueSize, softmaxScale} = problem;
  const group = queryHeads / keyHeads;
  const visibility = new Visibility(problem, mask);
  const dropout = new Dropout(problem);
  const qTile = new Float64Array(TILE_QUERIES * q.size);
  const kTile = new Float64Array(TILE_KEYS * k.size);
  const vTile = new Float64Array(TILE_KEYS * v.size);
  const scores = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const accumulator = new Float64Array(TILE_QUERIES * valueSize);
  const rowMax = new Float64Array(TILE_QUERIES);
  const rowSum = new Float64Array(TILE_QUERIES);
  const seen = new Int32Array(TILE_KEYS);
  const weights = new Float64Array(TILE_KEYS);
  const factors = new Float64Array(TILE_KEYS);

  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < queryHeads; h++) {
      const keyHead = Math.floor(h / group);
      for (let i0 = 0; i0 < queryLength; i0 += TILE_QUERIES) {
        const rows = Math.min(TILE_QUERIES, queryLength - i0);
        packRows(q, b, h, i0, rows, qTile);
        accumulator.fill(0);
        rowMax.fill(-Infinity);
        rowSum.fill(0);
        const keyEnd = visibility.keyEnd(i0 + rows - 1);
        for (let j0 = 0; j0 < keyEnd; j0 += TILE_KEYS) {
          const columns = Math.min(TILE_KEYS, keyEnd - j0);
          packRows(k, b, keyHead, j0, columns, kTile);
          packRows(v, b, keyHead, j0, columns, vTile);
          multiplyTransposed(qTile, rows, kTile, columns, q.size, softmaxScale, scores);
          for (let r = 0; r < rows; r++) {
            const count = visibility.list(b, h, i0 + r, j0, columns, seen);
            if (count === 0) {
              continue;
            }
            const row = r * TILE_KEYS;
            let max = rowMax[r];
            for (let n = 0; n < count; n++) {
              const s = scores[row + seen[n]];
              // A NaN score becomes the maximum and so reaches the whole row, as in any softmax.
              max = s > max || s !== s ? s : max;
            }
            if (max === -Infinity) {
              continue;
            }
            if (dropout.active) {
              dropout.factors(b, h, i0 + r, j0, columns, factors);
            }
            const rescale = Math.exp(rowMax[r] - max);
            let sum = rowSum[r] * rescale;
            for (let n = 0; n < count; n++) {
              const p = Math.exp(scores[row + seen[n]] - max);
              sum += p;
              weights[n] = dropout.active ? p * factors[seen[n]] : p;
            }
            rowMax[r] = max;
            rowSum[r] = sum;
            const at = r * valueSize;
            if (rescale !== 1) {
              for (let d = 0; d < valueSize; d++) {
                accumulator[at + d] *= rescale;
              }
            }
            addWeightedRows(weights, seen, count, vTile, valueSize, accumulator, at);
          }
        }
        for (let r = 0; r < rows; r++) {
          const to = b * output.strides.batch + (i0 + r) * output.strides.row + h * output.strides.head;
          const empty = rowMax[r] === -Infinity;
          for (let d = 0; d < valueSize; d++) {
            output.data[to + d] = empty ? 0 : accumulator[r * valueSize + d] / rowSum[r];
          }
          const row = (b * queryHeads + h) * queryLength + i0 + r;
          const exactLse = empty ? -Infinity : rowMax[r] + Math.log(rowSum[r]);
          lse[row] = exactLse;
          lseTail[row] = empty ? 0 : exactLse - lse[row];
        }
      }
    }
  }
}
