import {broadcastStrides, lseStrides} from '../../op/problem.js';
import type {Problem} from '../../op/problem.js';

import {Dropout, Scores} from './scores.js';
import type {Sequence} from './sequences.js';
import {addWeightedRows, multiplyTransposed, packRows, rowStart, TILE_KEYS, TILE_QUERIES} from './tiles.js';
import type {View} from './tiles.js';
import {Visibility} from './visibility.js';
import type {Extras} from './visibility.js';

/** Gradients to compute: those that are present. All of their elements are written. */
export interface Gradients {
  readonly q?: View;
  readonly k?: View;
  readonly v?: View;
  /** In the bias's own shape. */
  readonly bias?: Float32Array;
}

export interface SavedForward {
  readonly q: View;
  readonly k: View;
  readonly v: View;
  readonly extras: Extras;
  readonly output: View;
  readonly lse: Float32Array;
  readonly lseTail: Float32Array;
}

/**
 * The backward pass of FlashAttention-2 (Dao, 2023, algorithm 2), float64 inside: scores are computed again tile
 * by tile from q, k and the saved LSE. With P the weights, D = rowsum(dO∘O) − dLSE, and keep the dropout factors:
 * dV = (P∘keep)ᵀdO, dS = P∘(keep∘dO·Vᵀ − D), dBias = dS, and with softcap's slope dQ = scale·(slope∘dS)·K,
 * dK = scale·(slope∘dS)ᵀ·Q. Float64 accumulators hold one head of each gradient; nothing grows with Nq·Nk but the
 * gradient of a bias that does.
 */
export function attentionBackward(
    problem: Problem, sequences: readonly Sequence[], saved: SavedForward, dOutput: View,
    dLse: Float32Array|undefined, gradients: Gradients) {
  const {batch, queryHeads, keyHeads, headSize, valueSize, softmaxScale, softcap} = problem;
  const {q, k, v, extras, lse, lseTail} = saved;
  const group = queryHeads / keyHeads;
  const lseAt = lseStrides(problem);
  const dropout = new Dropout(problem, extras.seed);
  const needScoreGradient =
      gradients.q !== undefined || gradients.k !== undefined || gradients.bias !== undefined;
  const qTile = new Float64Array(TILE_QUERIES * headSize);
  const kTile = new Float64Array(TILE_KEYS * headSize);
  const vTile = new Float64Array(TILE_KEYS * valueSize);
  const dOTile = new Float64Array(TILE_QUERIES * valueSize);
  const products = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const dWeights = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const seen = new Int32Array(TILE_QUERIES * TILE_KEYS);
  const counts = new Int32Array(TILE_QUERIES);
  const weights = new Float64Array(TILE_KEYS);
  const dScores = new Float64Array(TILE_KEYS);
  const slopes = new Float64Array(TILE_KEYS).fill(1);
  const factors = new Float64Array(TILE_KEYS).fill(1);
  const queryRows = Math.max(0, ...sequences.map(sequence => sequence.queryRows));
  const keyRows = problem.layout === 'thd' ? problem.keyLength : problem.keyRows;
  const dQ = new Float64Array(gradients.q ? queryRows * headSize : 0);
  const dK = new Float64Array(gradients.k ? keyRows * headSize : 0);
  const dV = new Float64Array(gradients.v ? keyRows * valueSize : 0);
  const dBias = new Float64Array(gradients.bias?.length ?? 0);
  const [biasBatch, biasHead, biasRow, biasKey] = broadcastStrides(problem.biasShape);
  const delta = new Float64Array(queryRows);

  for (let b = 0; b < batch; b++) {
    const sequence = sequences[b];
    const {queryFirst, keyFirst, keyBatch} = sequence;
    const visibility = new Visibility(problem, sequence, extras.mask, extras.bias);
    const scores = new Scores(problem, sequence, extras);
    for (let keyHead = 0; keyHead < keyHeads; keyHead++) {
      dK.fill(0);
      dV.fill(0);
      for (let h = keyHead * group; h < (keyHead + 1) * group; h++) {
        dQ.fill(0);
        const rowFirst = b * lseAt.batch + h * lseAt.head + queryFirst;
        rowDelta(saved.output, dOutput, dLse, b, h, sequence, rowFirst, delta);
        for (let i0 = 0; i0 < sequence.queries; i0 += TILE_QUERIES) {
          const rows = Math.min(TILE_QUERIES, sequence.queries - i0);
          packRows(q, b, h, queryFirst + i0, rows, qTile);
          packRows(dOutput, b, h, queryFirst + i0, rows, dOTile);
          const [keyBegin, keyEnd] = visibility.tiles(i0, rows);
          for (let j0 = keyBegin; j0 < keyEnd; j0 += TILE_KEYS) {
            const columns = Math.min(TILE_KEYS, keyEnd - j0);
            if (visibility.listTile(b, h, i0, rows, j0, columns, seen, counts) === 0) {
              continue;
            }
            packRows(k, keyBatch, keyHead, keyFirst + j0, columns, kTile);
            multiplyTransposed(qTile, rows, kTile, columns, headSize, softmaxScale, products);
            if (needScoreGradient) {
              packRows(v, keyBatch, keyHead, keyFirst + j0, columns, vTile);
              multiplyTransposed(dOTile, rows, vTile, columns, valueSize, 1, dWeights);
            }
            for (let r = 0; r < rows; r++) {
              const rowLse = lse[rowFirst + i0 + r] + lseTail[rowFirst + i0 + r];
              const count = rowLse === -Infinity ? 0 : counts[r];
              if (count === 0) {
                continue;
              }
              const row = r * TILE_KEYS;
              scores.finish(products, row, seen, row, count, b, h, i0 + r, j0, softcap > 0 ? slopes : undefined);
              if (dropout.active) {
                dropout.factors(b, h, i0 + r, j0, columns, factors);
              }
              const biasAt = b * biasBatch + h * biasHead + (i0 + r) * biasRow + j0 * biasKey;
              for (let n = 0; n < count; n++) {
                const j = seen[row + n];
                const p = Math.exp(products[row + j] - rowLse);
                weights[n] = p * factors[j];
                const dScore = p * (dWeights[row + j] * factors[j] - delta[i0 + r]);
                if (gradients.bias) {
                  dBias[biasAt + j * biasKey] += dScore;
                }
                dScores[n] = dScore * slopes[n] * softmaxScale;
              }
              if (gradients.q) {
                addWeightedRows(dScores, seen, row, count, kTile, headSize, dQ, (i0 + r) * headSize);
              }
              if (gradients.k) {
                scatterRow(dScores, seen, row, count, qTile, r * headSize, headSize, dK, j0);
              }
              if (gradients.v) {
                scatterRow(weights, seen, row, count, dOTile, r * valueSize, valueSize, dV, j0);
              }
            }
          }
        }
        if (gradients.q) {
          storeHead(dQ, gradients.q, b, h, queryFirst, sequence.queryRows);
        }
      }
      const rows = problem.layout === 'thd' ? sequence.keys : keyRows;
      if (gradients.k) {
        storeHead(dK, gradients.k, b, keyHead, keyFirst, rows);
      }
      if (gradients.v) {
        storeHead(dV, gradients.v, b, keyHead, keyFirst, rows);
      }
    }
  }
  gradients.bias?.set(dBias);
}

/** delta[i] = Σ_d dO[i,d]·O[i,d] − dLSE[i] for the queries of one head. */
function rowDelta(
    output: View, dOutput: View, dLse: Float32Array|undefined, b: number, h: number, sequence: Sequence,
    rowFirst: number, delta: Float64Array) {
  for (let i = 0; i < sequence.queries; i++) {
    const at = rowStart(output, b, sequence.queryFirst + i, h);
    let sum = dLse ? -dLse[rowFirst + i] : 0;
    for (let d = 0; d < output.size; d++) {
      sum += output.data[at + d] * dOutput.data[at + d];
    }
    delta[i] = sum;
  }
}

/** into[first + index[from + n], :] += weights[n]·row for every listed n. */
function scatterRow(
    weights: Float64Array, index: Int32Array, from: number, count: number, rows: Float64Array, row: number,
    size: number, into: Float64Array, first: number) {
  for (let n = 0; n < count; n++) {
    const w = weights[n];
    const to = (first + index[from + n]) * size;
    for (let d = 0; d < size; d++) {
      into[to + d] += w * rows[row + d];
    }
  }
}

function storeHead(values: Float64Array, view: View, b: number, h: number, first: number, length: number) {
  const {data, size} = view;
  for (let i = 0; i < length; i++) {
    const to = rowStart(view, b, first + i, h);
    for (let d = 0; d < size; d++) {
      data[to + d] = values[i * size + d];
    }
  }
}
