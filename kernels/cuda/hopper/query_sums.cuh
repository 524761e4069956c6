// dQ where the kernel of dK and dV adds it: every tile of keys adds dS·K to sums in memory, in no particular order, and a
// kernel of its own makes dQ of them. TMA adds; what a warp adds at a time are 16 queries × 64 columns that lie in shared
// and global memory as in its accumulators, [8][lane][4], so that nothing is exchanged and no bank met twice.
//
// Sums are [units][rows][DP] floats by tiles of TILE queries: a tile's are those of its warps, one after the other.
#pragma once

#include "gradient_scales.cuh"
#include "tma.cuh"

namespace flash_attention {
namespace hopper {

/** Named barrier of the consumers. */
constexpr int D_SCORES_READY = 1;

/** Where the 64 × 64 of dQ lie that a warpgroup has of a tile: their first row and column. */
template <typename Plan>
__device__ __forceinline__ constexpr int sum_row(int group) {
  return group * GROUP_ROWS % Plan::TILE;
}
template <typename Plan>
__device__ __forceinline__ constexpr int sum_column(int group) {
  return group * GROUP_ROWS / Plan::TILE * SUM_COLUMNS;
}

/** Leaves a warpgroup's dSᵀ, packed as an operand, in a tile of keys × queries. */
template <typename Plan, int COUNT>
__device__ __forceinline__ void store_d_scores(uint32_t d_scores, int group, const uint32_t (&slopes)[COUNT]) {
  const int thread = threadIdx.x % GROUP_THREADS;
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    const int key = group * GROUP_ROWS + operand_row(thread, i % 4);
    const int query = i / 4 * STEP + operand_column(thread, i % 4, 0);
    store_word(d_scores + tile_byte(Plan::ROWS, key, query), static_cast<int>(slopes[i]));
  }
}

/** Has a warp's accumulators of dQ added to the tile's sums. What it had added before may still be read: it waits. */
template <typename Plan>
__device__ __forceinline__ void add_to_sums(float* tile_sums, uint32_t shared, int group, const float (&d_queries)[32]) {
  const int warp = group * 4 + static_cast<int>(threadIdx.x) % GROUP_THREADS / 32, lane = threadIdx.x % 32;
  const uint32_t from = shared + Plan::SUMS_AT + warp * SUM_BYTES;
  if (lane == 0) {
    await_reading();
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 32; i += 4) {
    store_four(from + i * 128 + lane * 16, d_queries[i], d_queries[i + 1], d_queries[i + 2], d_queries[i + 3]);
  }
  publish_stores();
  __syncwarp();
  if (lane == 0) {
    add_floats(tile_sums + warp * (SUM_BYTES / 4), from, SUM_BYTES);
  }
}

/** dQ of a tile of queries from its sums; a warp to what a warp has added. */
template <typename T, typename Plan>
__device__ __forceinline__ void finish_query_sums(const HopperParams& params) {
  const cuda::Params& call = params.call;
  const WorkTile work = work_tile(params.order, static_cast<int>(blockIdx.x));
  const HeadPlace place = place_queries(call, work);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = threadIdx.x % 32, group = warp / 4;
  const int first = work.tile * Plan::TILE, column = sum_column<Plan>(group);
  const int row = first + sum_row<Plan>(group) + warp % 4 * SUM_ROWS + lane / 4;
  if (first >= place.query_rows) {
    return;
  }
  float sums[32];
  if (first < place.sees.queries) {
    const float* from = call.d_q_sums +
        (place.head * call.query_place.rows + place.query_start + first) * Plan::DEPTH + warp * (SUM_BYTES / 4) + lane * 4;
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i * 32);
      sums[i] = four.x;
      sums[i + 1] = four.y;
      sums[i + 2] = four.z;
      sums[i + 3] = four.w;
    }
  }
  const float factor = gradient_scales<T>(call, place).d_query;
  const bool by_pairs = has_pairs(call.d_q, call.q_strides, call.head_size);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int query = row + half * 8;
    if (query < place.query_rows) {
      float* to = call.d_q + row_index(call.q_strides, place.batch, place.query_first + query, place.head) + column;
      store_row(half, to, call.head_size - column, sums, factor, query >= place.sees.queries, by_pairs);
    }
  }
}

}  // namespace hopper
}  // namespace flash_attention
