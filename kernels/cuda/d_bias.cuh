// The gradient of a bias: dS summed over what the bias is broadcast along. A block of threads owns elements of the bias
// (a tile of queries × keys, or 1 along an axis of 1) and computes the scores of all that read them once more.
#pragma once

#include "gradient.cuh"

namespace flash_attention {
namespace cuda {

/** Grid: x query tiles · key tiles (1 along an axis of 1), the keys fastest; y heads and z batches of the bias. */
template <class Tile>
__device__ __forceinline__ void d_bias_tile(const Params& p) {
  using Kind = typename Tile::Kind;
  constexpr int DP = Tile::DP, CHUNKS = Tile::MOVING / Tile::COLUMNS;
  extern __shared__ __align__(SHARED_ALIGNMENT) unsigned char shared[];
  __shared__ float of_warps[Tile::WARPS][Tile::MOVING];
  const GradientMemory<Tile> memory(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const bool own_queries = p.bias_strides.query != 0, own_keys = p.bias_strides.key != 0;
  const int key_tiles = own_keys ? (p.key_length + Tile::MOVING - 1) / Tile::MOVING : 1;
  const int first_query = own_queries ? blockIdx.x / key_tiles * Tile::ROWS : 0;
  const int first_key = own_keys ? blockIdx.x % key_tiles * Tile::MOVING : 0;
  const bool all_batches = p.bias_shape[0] == 1, all_heads = p.bias_shape[1] == 1;
  const int slot_batch = blockIdx.z, slot_head = blockIdx.y;

  float sums[CHUNKS][Tile::N][4] = {};
#pragma unroll 1
  for (int batch = all_batches ? 0 : slot_batch; batch < (all_batches ? p.batch : slot_batch + 1); batch++) {
    const SequencePlace sequence = p.places[batch];
    const Band band(p, sequence);
    const int last_query_end = min(sequence.queries, own_queries ? first_query + Tile::ROWS : sequence.queries);
#pragma unroll 1
    for (int head = all_heads ? 0 : slot_head; head < (all_heads ? p.query_heads : slot_head + 1); head++) {
      const int key_head = head / (p.query_heads / p.key_heads);
      const GradientScales scales = gradient_scales<Kind>(p, p.groups[batch * p.key_heads + key_head]);
#pragma unroll 1
      for (int row = first_query; row < last_query_end; row += Tile::ROWS) {
        const int last_row = min(row + Tile::ROWS, sequence.queries) - 1;
        const int begin = max(first_key, band.key_begin(row) / Tile::MOVING * Tile::MOVING);
        const int end = min(band.key_end(last_row), own_keys ? first_key + Tile::MOVING : p.key_length);
        if (begin >= end) {
          continue;
        }
        const int64_t query_row = head * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + row;
        copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_1, p.q16, query_row);
        copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_2, p.d_output16, query_row);
        RowStatistics own[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int64_t at = query_row + warp * 16 + accumulator_row(lane, 2 * half);
          own[half] = {p.lse_high[at], p.lse_low[at], p.delta[at] * scales.delta};
        }
#pragma unroll 1
        for (int key = begin; key < end; key += Tile::MOVING) {
          const int64_t key_row = key_head * p.key_place.rows + p.key_place.start(batch, sequence.key_first) + key;
          copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_1(0), p.k16, key_row);
          copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_2(0), p.v16, key_row);
          commit_copies();
          wait_copies<0>();
          __syncthreads();
#pragma unroll
          for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int here = key + chunk * Tile::COLUMNS;
            const bool is_full = band.is_full(row, row + Tile::ROWS - 1, here, here + Tile::COLUMNS);
            float weights[1][Tile::N][4], d_scores[1][Tile::N][4];
            pair_gradients<Tile, false, true, true, true>(
                p, band, {batch, head, row + warp * 16, here}, is_full, scales, memory.fixed_1, memory.fixed_2,
                memory.moving_1(0), memory.moving_2(0), chunk * Tile::COLUMNS, nullptr, own, weights, d_scores);
#pragma unroll
            for (int n = 0; n < Tile::N; n++) {
#pragma unroll
              for (int i = 0; i < 4; i++) {
                // Rows past the sequence may hold anything.
                const bool exists = row + warp * 16 + accumulator_row(lane, i) <= last_row;
                sums[chunk][n][i] += exists ? d_scores[0][n][i] * scales.d_score : 0.f;
              }
            }
          }
          __syncthreads();
        }
      }
    }
  }

  float* to = p.d_bias + slot_batch * p.bias_strides.batch + slot_head * p.bias_strides.head;
  if (own_queries && own_keys) {
#pragma unroll
    for (int n = 0; n < CHUNKS * Tile::N; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int query = first_query + warp * 16 + accumulator_row(lane, i);
        const int key = first_key + n * 8 + accumulator_column(lane, i);
        if (query < p.query_length && key < p.key_length) {
          to[query * p.bias_strides.query + key * p.bias_strides.key] = sums[n / Tile::N][n % Tile::N][i];
        }
      }
    }
    return;
  }
  if (own_queries) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float sum = 0;
#pragma unroll
      for (int n = 0; n < CHUNKS * Tile::N; n++) {
        sum += sums[n / Tile::N][n % Tile::N][2 * half] + sums[n / Tile::N][n % Tile::N][2 * half + 1];
      }
      sum = sum_of_quad(sum);
      const int query = first_query + warp * 16 + accumulator_row(lane, 2 * half);
      if ((lane & 3) == 0 && query < p.query_length) {
        to[query * p.bias_strides.query] = sum;
      }
    }
    return;
  }
#pragma unroll
  for (int n = 0; n < CHUNKS * Tile::N; n++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float sum = sums[n / Tile::N][n % Tile::N][i] + sums[n / Tile::N][n % Tile::N][i + 2];
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
      }
      if (lane < 4) {
        of_warps[warp][n * 8 + accumulator_column(lane, i)] = sum;
      }
    }
  }
  __syncthreads();
  if (own_keys) {
    for (int n = threadIdx.x; n < Tile::MOVING && first_key + n < p.key_length; n += Tile::THREADS) {
      float sum = 0;
      for (int of = 0; of < Tile::WARPS; of++) {
        sum += of_warps[of][n];
      }
      to[(first_key + n) * p.bias_strides.key] = sum;
    }
  } else if (threadIdx.x == 0) {
    float sum = 0;
    for (int n = 0; n < Tile::WARPS * Tile::MOVING; n++) {
      sum += of_warps[n / Tile::MOVING][n % Tile::MOVING];
    }
    *to = sum;
  }
}

}  // namespace cuda
}  // namespace flash_attention
