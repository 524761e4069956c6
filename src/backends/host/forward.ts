import {lseStrides} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {Dropout, Scores} from './scores.js';
import type {Sequence} from './sequences.js';
import {addWeightedRows, multiplyTransposed, packRows, rowStart, TILE_KEYS, TILE_QUERIES} from './tiles.js';
import type {View} from './tiles.js';
import {Visibility} from './visibility.js';
import type {Extras} from './visibility.js';

/**
 * Attention with the online softmax of FlashAttention-2 (Dao, 2023, algorithm 1), float64 inside: for each tile of
 * queries, walk the tiles of keys with a running maximum, denominator and unnormalised output. A row's sink is what it
 * starts from. Writes every element of `output` and of `lse` and `lseTail` ([B,Hq,Nq], or [Hq,total] with `thd`).
 */
export function attentionForward(
    problem: Problem, sequences: readonly Sequence[], q: View, k: View, v: View, extras: Extras, output: View,
    lse: Float32Array, lseTail: Float32Array) {
  const {batch, queryHeads, keyHeads, valueSize, softmaxScale} = problem;
  const group = queryHeads / keyHeads;
  const lseAt = lseStrides(problem);
  const dropout = new Dropout(problem, extras.seed);
  const qTile = new Float64Array(TILE_QUERIES * q.size);
  const kTile = new Float64Array(TILE_KEYS * k.size);
  const vTile = new Float64Array(TILE_KEYS * v.size);
  const products = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const accumulator = new Float64Array(TILE_QUERIES * valueSize);
  const rowMax = new Float64Array(TILE_QUERIES);
  const rowSum = new Float64Array(TILE_QUERIES);
  const seen = new Int32Array(TILE_QUERIES * TILE_KEYS);
  const counts = new Int32Array(TILE_QUERIES);
  const weights = new Float64Array(TILE_KEYS);
  const factors = new Float64Array(TILE_KEYS);

  for (let b = 0; b < batch; b++) {
    const sequence = sequences[b];
    const {queryFirst, keyFirst, keyBatch, queryRows} = sequence;
    const visibility = new Visibility(problem, sequence, extras.mask, extras.bias);
    const scores = new Scores(problem, sequence, extras);
    for (let h = 0; h < queryHeads; h++) {
      const keyHead = Math.floor(h / group);
      const sink = extras.sinks ? extras.sinks[h] : -Infinity;
      for (let i0 = 0; i0 < queryRows; i0 += TILE_QUERIES) {
        const rows = Math.min(TILE_QUERIES, queryRows - i0);
        packRows(q, b, h, queryFirst + i0, rows, qTile);
        accumulator.fill(0);
        rowMax.fill(sink);
        rowSum.fill(sink === -Infinity ? 0 : 1);
        const [keyBegin, keyEnd] = visibility.tiles(i0, rows);
        for (let j0 = keyBegin; j0 < keyEnd; j0 += TILE_KEYS) {
          const columns = Math.min(TILE_KEYS, keyEnd - j0);
          if (visibility.listTile(b, h, i0, rows, j0, columns, seen, counts) === 0) {
            continue;
          }
          packRows(k, keyBatch, keyHead, keyFirst + j0, columns, kTile);
          packRows(v, keyBatch, keyHead, keyFirst + j0, columns, vTile);
          multiplyTransposed(qTile, rows, kTile, columns, q.size, softmaxScale, products);
          for (let r = 0; r < rows; r++) {
            const count = counts[r];
            const row = r * TILE_KEYS;
            scores.finish(products, row, seen, row, count, b, h, i0 + r, j0);
            let max = rowMax[r];
            for (let n = 0; n < count; n++) {
              const s = products[row + seen[row + n]];
              // A NaN score becomes the maximum and so reaches the whole row, as in any softmax.
              max = s > max || s !== s ? s : max;
            }
            if (count === 0 || max === -Infinity) {
              continue;
            }
            if (dropout.active) {
              dropout.factors(b, h, i0 + r, j0, columns, factors);
            }
            const rescale = Math.exp(rowMax[r] - max);
            let sum = rowSum[r] * rescale;
            for (let n = 0; n < count; n++) {
              const j = seen[row + n];
              const p = Math.exp(products[row + j] - max);
              sum += p;
              weights[n] = dropout.active ? p * factors[j] : p;
            }
            rowMax[r] = max;
            rowSum[r] = sum;
            const at = r * valueSize;
            if (rescale !== 1) {
              for (let d = 0; d < valueSize; d++) {
                accumulator[at + d] *= rescale;
              }
            }
            addWeightedRows(weights, seen, row, count, vTile, valueSize, accumulator, at);
          }
        }
        for (let r = 0; r < rows; r++) {
          const to = rowStart(output, b, queryFirst + i0 + r, h);
          const empty = rowMax[r] === -Infinity;
          for (let d = 0; d < valueSize; d++) {
            output.data[to + d] = empty ? 0 : accumulator[r * valueSize + d] / rowSum[r];
          }
          const row = b * lseAt.batch + h * lseAt.head + queryFirst + i0 + r;
          const exactLse = empty ? -Infinity : rowMax[r] + Math.log(rowSum[r]);
          lse[row] = exactLse;
          lseTail[row] = Number.isFinite(exactLse) ? exactLse - lse[row] : 0;
        }
      }
    }
  }
}
