import type {Problem} from '../../op/problem.js';

import {addWeightedRows, Dropout, multiplyTransposed, packRows, TILE_KEYS, TILE_QUERIES, Visibility} from './tiles.js';
import type {View} from './tiles.js';

/** Gradients to compute: those that are present. All of their elements are written. */
export interface Gradients {
  readonly q?: View;
  readonly k?: View;
  readonly v?: View;
}

export interface SavedForward {
  readonly q: View;
  readonly k: View;
  readonly v: View;
  readonly mask?: Uint8Array;
  readonly output: View;
  readonly lse: Float32Array;
  readonly lseTail: Float32Array;
}

/**
 * The backward pass of FlashAttention-2 (Dao, 2023, algorithm 2), float64 inside: scores are computed again tile
 * by tile from q, k and the saved LSE. With P the weights, D = rowsum(dO∘O) − dLSE, and keep the dropout factors:
 * dV = (P∘keep)ᵀdO, dS = P∘(keep∘dO·Vᵀ − D), dQ = scale·dS·K, dK = scale·dSᵀ·Q.
 * Float64 accumulators hold one head of each gradient; nothing grows with Nq·Nk.
 */
export function attentionBackward(
    problem: Problem, saved: SavedForward, dOutput: View, dLse: Float32Array|undefined, gradients: Gradients) {
  const {batch, queryHeads, keyHeads, queryLength, keyLength, headSize, valueSize, softmaxScale} = problem;
  const {q, k, v, lse, lseTail} = saved;
  const group = queryHeads / keyHeads;
  const visibility = new Visibility(problem, saved.mask);
  const dropout = new Dropout(problem);
  const needScoreGradient = gradients.q !== undefined || gradients.k !== undefined;
  const qTile = new Float64Array(TILE_QUERIES * headSize);
  const kTile = new Float64Array(TILE_KEYS * headSize);
  const vTile = new Float64Array(TILE_KEYS * valueSize);
  const dOTile = new Float64Array(TILE_QUERIES * valueSize);
  const scores = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const dWeights = new Float64Array(TILE_QUERIES * TILE_KEYS);
  const seen = new Int32Array(TILE_KEYS);
  const weights = new Float64Array(TILE_KEYS);
  const dScores = new Float64Array(TILE_KEYS);
  const factors = new Float64Array(TILE_KEYS).fill(1);
  const dQ = new Float64Array(gradients.q ? queryLength * headSize : 0);
  const dK = new Float64Array(gradients.k ? keyLength * headSize : 0);
  const dV = new Float64Array(gradients.v ? keyLength * valueSize : 0);
  const delta = new Float64Array(queryLength);

  for (let b = 0; b < batch; b++) {
    for (let keyHead = 0; keyHead < keyHeads; keyHead++) {
      dK.fill(0);
      dV.fill(0);
      for (let h = keyHead * group; h < (keyHead + 1) * group; h++) {
        dQ.fill(0);
        const rowStart = (b * queryHeads + h) * queryLength;
        rowDelta(saved.output, dOutput, dLse, b, h, rowStart, delta);
        for (let i0 = 0; i0 < queryLength; i0 += TILE_QUERIES) {
          const rows = Math.min(TILE_QUERIES, queryLength - i0);
          packRows(q, b, h, i0, rows, qTile);
          packRows(dOutput, b, h, i0, rows, dOTile);
          const keyEnd = visibility.keyEnd(i0 + rows - 1);
          for (let j0 = 0; j0 < keyEnd; j0 += TILE_KEYS) {
            const columns = Math.min(TILE_KEYS, keyEnd - j0);
            packRows(k, b, keyHead, j0, columns, kTile);
            multiplyTransposed(qTile, rows, kTile, columns, headSize, softmaxScale, scores);
            if (needScoreGradient) {
              packRows(v, b, keyHead, j0, columns, vTile);
              multiplyTransposed(dOTile, rows, vTile, columns, valueSize, 1, dWeights);
            }
            for (let r = 0; r < rows; r++) {
              const rowLse = lse[rowStart + i0 + r] + lseTail[rowStart + i0 + r];
              const count = rowLse === -Infinity ? 0 : visibility.list(b, h, i0 + r, j0, columns, seen);
              if (count === 0) {
                continue;
              }
              if (dropout.active) {
                dropout.factors(b, h, i0 + r, j0, columns, factors);
              }
              const row = r * TILE_KEYS;
              for (let n = 0; n < count; n++) {
                const j = seen[n];
                const p = Math.exp(scores[row + j] - rowLse);
                weights[n] = p * factors[j];
                dScores[n] = p * (dWeights[row + j] * factors[j] - delta[i0 + r]) * softmaxScale;
              }
              if (gradients.q) {
                addWeightedRows(dScores, seen, count, kTile, headSize, dQ, (i0 + r) * headSize);
              }
              if (gradients.k) {
                scatterRow(dScores, seen, count, qTile, r * headSize, headSize, dK, j0);
              }
              if (gradients.v) {
                scatterRow(weights, seen, count, dOTile, r * valueSize, valueSize, dV, j0);
              }
            }
          }
        }
        if (gradients.q) {
          storeHead(dQ, gradients.q, b, h, queryLength);
        }
      }
      if (gradients.k) {
        storeHead(dK, gradients.k, b, keyHead, keyLength);
      }
      if (gradients.v) {
        storeHead(dV, gradients.v, b, keyHead, keyLength);
      }
    }
  }
}

/** delta[i] = Σ_d dO[i,d]·O[i,d] − dLSE[i] for the rows of one head. */
function rowDelta(
    output: View, dOutput: View, dLse: Float32Array|undefined, b: number, h: number, rowStart: number,
    delta: Float64Array) {
  const {strides, size, data} = output;
  for (let i = 0; i < delta.length; i++) {
    const at = b * strides.batch + i * strides.row + h * strides.head;
    let sum = dLse ? -dLse[rowStart + i] : 0;
    for (let d = 0; d < size; d++) {
      sum += data[at + d] * dOutput.data[at + d];
    }
    delta[i] = sum;
  }
}

/** into[first + index[n], :] += weights[n]·row for every listed n. */
function scatterRow(
    weights: Float64Array, index: Int32Array, count: number, rows: Float64Array, row: number, size: number,
    into: Float64Array, first: number) {
  for (let n = 0; n < count; n++) {
    const w = weights[n];
    const to = (first + index[n]) * size;
    for (let d = 0; d < size; d++) {
      into[to + d] += w * rows[row + d];
    }
  }
}

function storeHead(values: Float64Array, {data, strides, size}: View, b: number, h: number, length: number) {
  for (let i = 0; i < length; i++) {
    const to = b * strides.batch + i * strides.row + h * strides.head;
    for (let d = 0; d < size; d++) {
      data[to + d] = values[i * size + d];
    }
  }
}
