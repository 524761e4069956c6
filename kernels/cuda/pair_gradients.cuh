// Scores again, and from them and dP = dO·Vᵀ the weights and dS = P∘(keep∘dP − D) of a warp's 16 rows and a chunk of
// columns. Rows are the queries or the keys of the pairs; either way the results are left operands of what follows.
#pragma once

#include "softmax.cuh"
#include "tiles.cuh"

namespace flash_attention {
namespace cuda {

/** ROWS of the tile that stays, MOVING of those that come by, COLUMNS of them at once. */
template <class Kind_, int DP_, int WARPS_, int MOVING_, int STAGES_, int COLUMNS_>
struct GradientTile {
  using Kind = Kind_;
  static constexpr int DP = DP_, WARPS = WARPS_, MOVING = MOVING_, STAGES = STAGES_, COLUMNS = COLUMNS_;
  static constexpr int THREADS = WARPS * 32, ROWS = WARPS * 16, N = COLUMNS / 8;
  static constexpr int FIXED_BYTES = TILE_BYTES<Kind, ROWS, DP>, MOVING_BYTES = TILE_BYTES<Kind, MOVING, DP>;
  static constexpr bool TIGHT = DP >= 128;
  /** LSE high, low and D of the rows that come by; whole rows of operands, so that the next stage's are aligned. */
  static constexpr int STATISTICS_BYTES = (3 * MOVING * 4 + DP * 2 - 1) / (DP * 2) * (DP * 2);
  static constexpr int STAGE_BYTES = 2 * MOVING_BYTES + STATISTICS_BYTES;
  static constexpr int SHARED_BYTES = 2 * FIXED_BYTES + STAGES * STAGE_BYTES;
  static_assert(TILE_ROWS % ROWS == 0 && TILE_ROWS % MOVING == 0 && MOVING % COLUMNS == 0, "whole tiles");
};

/** Factors between accumulators and what they stand for; the same for all query heads of a key head. */
struct GradientScales {
  /** Of products q·k: natural scores. */
  float natural;
  /** Of dP and of D inside dS, as operand. */
  float d_weight, delta;
  /** Of sums over dS·K, dSᵀ·Q, Pᵀ·dO, and of dS itself. */
  float d_query, d_key, d_value, d_score;
};

/** dS as an operand is brought into the range of f16 by its bound: kept·|dO|·|V| + |D|, of the largest rows. */
template <class Kind>
__device__ __forceinline__ GradientScales gradient_scales(const Params& p, const GroupState& group) {
  const int q = exponent_for(group.q), k = exponent_for(group.k);
  const int v = exponent_for(group.v), d_output = exponent_for(group.d_output);
  int d_score = 0;
  if constexpr (Kind::WEIGHT_EXPONENT > 0) {
    const float bound = p.kept_scale * sqrtf(__uint_as_float(group.v_squares)) *
                            sqrtf(__uint_as_float(group.d_output_squares)) + __uint_as_float(group.delta);
    d_score = exponent_for(__float_as_uint(fminf(bound, 3e38f)));
  }
  GradientScales scales;
  scales.natural = p.softmax_scale * power_of_two(-q - k);
  scales.d_weight = p.kept_scale * power_of_two(d_score - Kind::WEIGHT_EXPONENT - v - d_output);
  scales.delta = power_of_two(d_score - Kind::WEIGHT_EXPONENT);
  scales.d_query = p.softmax_scale * power_of_two(-d_score - k);
  scales.d_key = p.softmax_scale * power_of_two(-d_score - q);
  scales.d_value = p.kept_scale * power_of_two(-Kind::WEIGHT_EXPONENT - d_output);
  scales.d_score = power_of_two(-d_score);
  return scales;
}

/** LSE high and low and D·scale of a row. */
struct RowStatistics {
  float high, low, delta;
};

/** Where the pairs of a chunk are: row and column 0 as a query and a key, one each way. */
struct PairPlace {
  int batch, head, row, column;
};

/**
 * @param fixed_1, fixed_2 of this warp's rows: K and V where rows are keys, else Q and dO
 * @param moving_1, moving_2 the others, `first` their row of column 0
 * @param statistics in shared memory, of the columns, where rows are keys; else `own` of the lane's two rows
 * @param weights those that meet dO, dropped ones 0; d_scores: of the products q·k, or OF_SCORES of what the bias joins
 */
template <class Tile, bool ROWS_ARE_KEYS, bool GENERAL, bool NEEDS_D_SCORES, bool OF_SCORES>
__device__ __forceinline__ void pair_gradients(const Params& p, const Band& band, const PairPlace& place, bool is_full,
                                               const GradientScales& scales, uint32_t fixed_1, uint32_t fixed_2,
                                               uint32_t moving_1, uint32_t moving_2, int first,
                                               const float* statistics, const RowStatistics (&own)[2],
                                               float (&weights)[1][Tile::N][4], float (&d_scores)[1][Tile::N][4]) {
  using Kind = typename Tile::Kind;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int n = 0; n < Tile::N; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      weights[0][n][i] = d_scores[0][n][i] = 0;
    }
  }
  multiply_rows<Kind, Tile::DP, Tile::ROWS, Tile::MOVING, Tile::TIGHT>(weights, fixed_1, warp * 16, moving_1, first);
  if constexpr (NEEDS_D_SCORES) {
    hold_loads<Kind::PIECES == 2>();
    multiply_rows<Kind, Tile::DP, Tile::ROWS, Tile::MOVING, Tile::TIGHT>(d_scores, fixed_2, warp * 16, moving_2, first);
  }
  const float scale = scales.natural * LOG2_E;
#pragma unroll
  for (int n = 0; n < Tile::N; n++) {
    const int column = n * 8 + accumulator_column(lane, 0);
    float high[2], low[2], delta[2];
    if constexpr (ROWS_ARE_KEYS) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        high[i] = statistics[first + column + i];
        low[i] = statistics[Tile::MOVING + first + column + i];
        delta[i] = NEEDS_D_SCORES ? statistics[2 * Tile::MOVING + first + column + i] * scales.delta : 0.f;
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = place.row + accumulator_row(lane, i), other = place.column + column + (i & 1);
      const int query = ROWS_ARE_KEYS ? other : row, key = ROWS_ARE_KEYS ? row : other;
      const RowStatistics of = ROWS_ARE_KEYS ? RowStatistics{high[i & 1], low[i & 1], delta[i & 1]} : own[i / 2];
      float weight = weights[0][n][i], d_weight = d_scores[0][n][i], slope = 1;
      bool visible = is_full || band.sees(query, key);
      if constexpr (GENERAL) {
        const float score = visible ? finish_score(p, band, place.batch, place.head, query, key,
                                                   weight * scales.natural, &slope)
                                    : -INFINITE;
        visible = score != -INFINITE;
        weight = weight_of<Kind>((score - of.high) - of.low);
      } else {
        weight = weight_of<Kind>(fmaf(weight, scale, -of.high) - of.low);
      }
      weight = visible ? weight : 0.f;
      d_weight *= scales.d_weight;
      float kept_weight = weight;
      if (GENERAL && p.dropout) {
        const bool kept = keeps(p, place.batch, place.head, query, key);
        kept_weight = kept ? weight : 0.f;
        d_weight = kept ? d_weight : 0.f;
      }
      float d_score = weight * (d_weight - of.delta);
      if (GENERAL && !OF_SCORES) {
        d_score *= slope;
      }
      weights[0][n][i] = kept_weight;
      d_scores[0][n][i] = visible ? d_score : 0.f;
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
