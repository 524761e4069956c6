// dQ on Hopper, apart from dK and dV so that every element is summed in one order: a warpgroup owns 64 queries and
// walks the keys as the forward pass does. dS leaves the accumulators as the A operand of dQ += dS·K.
#pragma once

#include "gradient_scales.cuh"
#include "groups.cuh"
#include "tma.cuh"

namespace flash_attention {
namespace hopper {

template <typename Plan>
__device__ __forceinline__ void feed_query_gradient(const HopperParams& params, uint32_t shared) {
  constexpr int DP = Plan::DEPTH, KEYS = Plan::TILE;
  const QueryBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  prefetch_map(&params.q);
  prefetch_map(&params.k);
  prefetch_map(&params.v);
  prefetch_map(&params.d_output);
  Ring<Plan::BUFFERS> ring;
  uint32_t queries_phase = 0;
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (WorkTile work = queue.draw(params); work.head >= 0; work = queue.draw(params)) {
    const HeadPlace place = place_queries(params.call, work);
    const TileRange tiles = key_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, KEYS);
    if (tiles.count() == 0) {
      continue;
    }
    const int query_row = place.query_start + work.tile * Plan::ROWS;
    wait(barriers.queries_empty(), queries_phase ^ 1);
    arrive_expecting(barriers.queries_full(), 2 * Plan::QUERY_BYTES);
    load_tile<Plan::ROWS, DP>(shared, &params.q, barriers.queries_full(), query_row, place.head);
    load_tile<Plan::ROWS, DP>(shared + Plan::D_OUTPUTS_AT, &params.d_output, barriers.queries_full(), query_row,
                              place.head);
    queries_phase ^= 1;
    for (int tile = tiles.last - 1; tile >= tiles.first; tile--) {
      const int row = place.key_start + tile * KEYS;
      wait(barriers.keys_empty(ring.stage()), ring.phase() ^ 1);
      arrive_expecting(barriers.keys_full(ring.stage()), Plan::KEY_BYTES);
      load_tile<KEYS, DP>(shared + Plan::KEYS_AT + ring.stage() * Plan::KEY_BYTES, &params.k,
                          barriers.keys_full(ring.stage()), row, place.key_head);
      wait(barriers.values_empty(ring.stage()), ring.phase() ^ 1);
      arrive_expecting(barriers.values_full(ring.stage()), Plan::KEY_BYTES);
      load_tile<KEYS, DP>(shared + Plan::VALUES_AT + ring.stage() * Plan::KEY_BYTES, &params.v,
                          barriers.values_full(ring.stage()), row, place.key_head);
      ring.advance();
    }
  }
}

template <typename T, typename Plan>
__device__ __forceinline__ void gather_query_gradient(const HopperParams& params, uint32_t shared, int group) {
  constexpr int DP = Plan::DEPTH, KEYS = Plan::TILE;
  constexpr bool IS_SCALED = !std::is_same<T, Bfloat16>::value;
  const cuda::Params& call = params.call;
  const QueryBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  const int thread = threadIdx.x % GROUP_THREADS;
  const bool speaks = thread % 32 == 0;
  const uint32_t queries = shared + group * GROUP_ROWS * PANEL_ROW_BYTES, d_outputs = queries + Plan::D_OUTPUTS_AT;
  const bool by_pairs = has_pairs(call.d_q, call.q_strides, call.head_size);
  Ring<Plan::BUFFERS> ring;
  uint32_t queries_phase = 0;
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (WorkTile work = queue.take(params); work.head >= 0; work = queue.take(params)) {
    const HeadPlace place = place_queries(call, work);
    const TileRange tiles = key_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, KEYS);
    const int first_row = work.tile * Plan::ROWS + group * GROUP_ROWS + accumulator_row(thread, 0);
    const GradientScales scales = gradient_scales<T>(call, place);
    float d_queries[DP / 2];
#pragma unroll
    for (int i = 0; i < DP / 2; i++) {
      d_queries[i] = 0;
    }
    if (tiles.count() > 0) {
      float scores[KEYS / 2], d_scores[KEYS / 2];
      uint32_t slopes[KEYS / 4];
      int begin[2], end[2];
      float lse[2], delta[2];
      int in_use = -1;
#pragma unroll
      for (int row = 0; row < 2; row++) {
        const int query = first_row + row * 8;
        const bool is_used = query < place.sees.queries;
        const int64_t at = place.head * call.query_place.rows + place.query_start + query;
        begin[row] = place.sees.key_begin(query);
        end[row] = place.sees.key_end(query);
        // +∞ is the LSE of a row that sees nothing.
        lse[row] = is_used ? call.lse_high[at] : INFINITE;
        delta[row] = is_used ? call.delta[at] * scales.delta : 0.f;
      }
      wait(barriers.queries_full(), queries_phase);
      queries_phase ^= 1;
      for (int tile = tiles.last - 1; tile >= tiles.first; tile--) {
        const uint32_t keys = shared + Plan::KEYS_AT + ring.stage() * Plan::KEY_BYTES;
        const uint32_t values = shared + Plan::VALUES_AT + ring.stage() * Plan::KEY_BYTES;
        wait(barriers.keys_full(ring.stage()), ring.phase());
        begin_products();
        multiply_rows<T, KEYS, DP, Plan::ROWS>(scores, queries, keys);
        commit_products();
        wait(barriers.values_full(ring.stage()), ring.phase());
        begin_products();
        multiply_rows<T, KEYS, DP, Plan::ROWS>(d_scores, d_outputs, values);
        commit_products();
        // With the scores what the tile before added to dQ is done, and its K is free.
        await_products<1>();
        if (speaks && in_use >= 0) {
          arrive(barriers.keys_empty(in_use));
        }
        in_use = ring.stage();
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
          scores[i] = exponential(fmaf(scores[i], scales.score, -lse[i / 2 % 2]));
        }
        if (!tiles.is_whole(tile)) {
          const int first_key = tile * KEYS + thread % 4 * 2;
#pragma unroll
          for (int i = 0; i < KEYS / 2; i++) {
            const int key = first_key + i / 4 * 8 + i % 2, row = i / 2 % 2;
            scores[i] = key >= begin[row] && key < end[row] ? scores[i] : 0.f;
          }
        }
        await_products<0>();
        if (speaks) {
          arrive(barriers.values_empty(ring.stage()));
        }
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
          const float of_row = delta[i / 2 % 2];
          d_scores[i] = scores[i] * (IS_SCALED ? fmaf(d_scores[i], scales.product, -of_row) : d_scores[i] - of_row);
        }
        pack_operand<T>(d_scores, slopes);
        begin_products();
        multiply_columns<T, DP, KEYS>(d_queries, slopes, keys, true);
        commit_products();
        ring.advance();
      }
      await_products<0>();
      if (speaks) {
        arrive(barriers.keys_empty(in_use));
        arrive(barriers.queries_empty());
      }
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const int query = first_row + row * 8;
      if (query < place.query_rows) {
        float* to = call.d_q + row_index(call.q_strides, place.batch, place.query_first + query, place.head);
        const bool is_zero = query >= place.sees.queries;
        store_row(row, to, call.head_size, d_queries, scales.d_query, is_zero, by_pairs);
      }
    }
  }
}

template <typename T, typename Plan>
__device__ __forceinline__ void query_gradient(const HopperParams& params) {
  const uint32_t shared = shared_start();
  run_groups<Plan, QueryBarriers<Plan>>(
      shared, [&] { feed_query_gradient<Plan>(params, shared); }, [&](int group) { gather_query_gradient<T, Plan>(params, shared, group); });
}

}  // namespace hopper
}  // namespace flash_attention
