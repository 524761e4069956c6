// dK and dV on Hopper. A warpgroup owns 64 keys and computes scores with keys as rows, Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ: so Pᵀ
// and dSᵀ come out as the A operands that dV += Pᵀ·dO and dK += dSᵀ·Q take from registers, and nothing but the operands
// goes through shared memory. All query heads of a key head are summed in one place and one order.
//
// Where dQ is added here too (Plan::ADDS) dSᵀ also goes to shared memory, and each warpgroup multiplies a share of dQ's
// rows or columns, over all keys of the block: five products for seven, but sums whose order is not the same every time.
#pragma once

#include "gradient_scales.cuh"
#include "groups.cuh"
#include "query_sums.cuh"
#include "tma.cuh"

namespace flash_attention {
namespace hopper {

template <typename Plan>
struct KeyGradientBarriers {
  uint32_t at;
  __device__ __forceinline__ uint32_t keys_full() const { return at; }
  __device__ __forceinline__ uint32_t keys_empty() const { return at + 8; }
  __device__ __forceinline__ uint32_t full(int stage) const { return at + 16 + stage * 16; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return at + 24 + stage * 16; }

  __device__ __forceinline__ void start(int consumer_warps) const {
    start_barrier(keys_full(), 1);
    start_barrier(keys_empty(), consumer_warps);
    for (int stage = 0; stage < Plan::BUFFERS; stage++) {
      start_barrier(full(stage), 1);
      start_barrier(empty(stage), consumer_warps);
    }
  }
};

template <typename Plan>
__device__ __forceinline__ void feed_key_gradient(const HopperParams& params, uint32_t shared) {
  constexpr int DP = Plan::DEPTH, QUERIES = Plan::TILE;
  const cuda::Params& call = params.call;
  const KeyGradientBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  prefetch_map(&params.q);
  prefetch_map(&params.k);
  prefetch_map(&params.v);
  prefetch_map(&params.d_output);
  const int group = call.query_heads / call.key_heads;
  Ring<Plan::BUFFERS> ring;
  uint32_t keys_phase = 0;
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (WorkTile work = queue.draw(params); work.head >= 0; work = queue.draw(params)) {
    const HeadPlace place = place_keys(call, work);
    const TileRange tiles = query_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, QUERIES);
    if (tiles.count() == 0) {
      continue;
    }
    wait(barriers.keys_empty(), keys_phase ^ 1);
    arrive_expecting(barriers.keys_full(), 2 * Plan::KEY_BYTES);
    const int key_row = place.key_start + work.tile * Plan::ROWS;
    load_tile<Plan::ROWS, DP>(shared, &params.k, barriers.keys_full(), key_row, place.key_head);
    load_tile<Plan::ROWS, DP>(shared + Plan::VALUES_AT, &params.v, barriers.keys_full(), key_row, place.key_head);
    keys_phase ^= 1;
    for (int head = place.head; head < place.head + group; head++) {
      for (int tile = tiles.first; tile < tiles.last; tile++) {
        const uint32_t full = barriers.full(ring.stage());
        const int row = place.query_start + tile * QUERIES;
        const int statistics = head * static_cast<int>(call.query_place.rows) + row;
        const uint32_t rows = shared + Plan::ROWS_AT + ring.stage() * 2 * Plan::ROW_BYTES;
        wait(barriers.empty(ring.stage()), ring.phase() ^ 1);
        arrive_expecting(full, 2 * Plan::QUERY_BYTES + 2 * Plan::ROW_BYTES);
        load_tile<QUERIES, DP>(shared + Plan::QUERIES_AT + ring.stage() * Plan::QUERY_BYTES, &params.q, full, row,
                               head);
        load_bytes(rows, call.lse_high + statistics, Plan::ROW_BYTES, full);
        load_tile<QUERIES, DP>(shared + Plan::D_OUTPUTS_AT + ring.stage() * Plan::QUERY_BYTES, &params.d_output, full,
                               row, head);
        load_bytes(rows + Plan::ROW_BYTES, call.delta + statistics, Plan::ROW_BYTES, full);
        ring.advance();
      }
    }
  }
}

template <typename T, typename Plan>
__device__ __forceinline__ void gather_key_gradient(const HopperParams& params, uint32_t shared, int group) {
  constexpr int DP = Plan::DEPTH, QUERIES = Plan::TILE;
  constexpr bool IS_SCALED = !std::is_same<T, Bfloat16>::value;
  const cuda::Params& call = params.call;
  const KeyGradientBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  const int thread = threadIdx.x % GROUP_THREADS;
  const bool speaks = thread % 32 == 0;
  const uint32_t keys = shared + group * GROUP_ROWS * PANEL_ROW_BYTES, values = keys + Plan::VALUES_AT;
  const int heads = call.query_heads / call.key_heads;
  Ring<Plan::BUFFERS> ring;
  uint32_t keys_phase = 0;
  // Of dSᵀ. Two, so that one barrier a tile is enough: who has passed it knows that all have read the buffer before.
  int buffer = 0;
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (WorkTile work = queue.take(params); work.head >= 0; work = queue.take(params)) {
    const HeadPlace place = place_keys(call, work);
    const TileRange tiles = query_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, QUERIES);
    const int first_key = work.tile * Plan::ROWS + group * GROUP_ROWS + accumulator_row(thread, 0);
    const GradientScales scales = gradient_scales<T>(call, place);
    float d_keys[DP / 2], d_values[DP / 2];
#pragma unroll
    for (int i = 0; i < DP / 2; i++) {
      d_keys[i] = 0;
      d_values[i] = 0;
    }
    if (tiles.count() > 0) {
      float scores[QUERIES / 2], d_scores[QUERIES / 2];
      uint32_t weights[QUERIES / 4], slopes[QUERIES / 4];
      bool is_first = true;
      int tile = tiles.first, head = place.head;
      wait(barriers.keys_full(), keys_phase);
      keys_phase ^= 1;
      wait(barriers.full(ring.stage()), ring.phase());
      const auto begin_tile = [&] {
        begin_products();
        multiply_rows<T, QUERIES, DP, Plan::ROWS>(scores, keys,
                                                  shared + Plan::QUERIES_AT + ring.stage() * Plan::QUERY_BYTES);
        commit_products();
        if constexpr (Plan::ADDS) {
          multiply_rows<T, QUERIES, DP, Plan::ROWS>(d_scores, values,
                                                    shared + Plan::D_OUTPUTS_AT + ring.stage() * Plan::QUERY_BYTES);
          commit_products();
        }
      };
      begin_tile();
      await_products<Plan::ADDS ? 1 : 0>();
      // In flight at the top: scores, and what the tile before adds to dV and dK. Starting dP only when they are done
      // lets it have the registers of that tile's operands; the other warpgroup's products fill the gap. Where dQ
      // is added those are done, and dP is in flight (awaiting scores here and not at the end of the step would be C7514).
      const auto step = [&](auto is_last) {
        const uint32_t queries = shared + Plan::QUERIES_AT + ring.stage() * Plan::QUERY_BYTES;
        const uint32_t d_outputs = shared + Plan::D_OUTPUTS_AT + ring.stage() * Plan::QUERY_BYTES;
        const uint32_t rows = shared + Plan::ROWS_AT + ring.stage() * 2 * Plan::ROW_BYTES + thread % 4 * 8;
        const bool is_whole = tiles.is_whole(tile);
        if constexpr (!Plan::ADDS) {
          await_products<0>();
          if (speaks && !is_first) {
            arrive(barriers.empty(ring.stage_before()));
          }
          is_first = false;
          begin_products();
          multiply_rows<T, QUERIES, DP, Plan::ROWS>(d_scores, values, d_outputs);
          commit_products();
        }
#pragma unroll
        for (int i = 0; i < QUERIES / 8; i++) {
          // +∞ is the LSE of a row that sees nothing.
          const float2 lse = load_pair(rows + i * 32);
#pragma unroll
          for (int j = 0; j < 4; j++) {
            scores[i * 4 + j] = exponential(fmaf(scores[i * 4 + j], scales.score, -(j % 2 ? lse.y : lse.x)));
          }
        }
        if (!is_whole) {
          const Visibility sees = place_keys(call, work).sees;
          const int begin[2] = {sees.query_begin(first_key), sees.query_begin(first_key + 8)};
          const int end[2] = {sees.query_end(first_key), sees.query_end(first_key + 8)};
          const int first_query = tile * QUERIES + thread % 4 * 2;
#pragma unroll
          for (int i = 0; i < QUERIES / 2; i++) {
            const int query = first_query + i / 4 * 8 + i % 2, row = i / 2 % 2;
            scores[i] = query >= begin[row] && query < end[row] ? scores[i] : 0.f;
          }
        }
        await_products<0>();
#pragma unroll
        for (int i = 0; i < QUERIES / 8; i++) {
          float2 delta = load_pair(rows + Plan::ROW_BYTES + i * 32);
          if (IS_SCALED) {
            delta.x *= scales.delta;
            delta.y *= scales.delta;
          }
#pragma unroll
          for (int j = 0; j < 4; j++) {
            const float product = d_scores[i * 4 + j], of_row = j % 2 ? delta.y : delta.x;
            d_scores[i * 4 + j] =
                scores[i * 4 + j] * (IS_SCALED ? fmaf(product, scales.product, -of_row) : product - of_row);
          }
        }
        if (!is_whole) {
          // Statistics of rows past the sequence are not defined, and 0·NaN is not 0.
#pragma unroll
          for (int i = 0; i < QUERIES / 2; i++) {
            d_scores[i] = scores[i] == 0 ? 0.f : d_scores[i];
          }
        }
        // Operands in registers may only be written while no product is in flight (C7513).
        pack_operand<T>(scores, weights);
        pack_operand<T>(d_scores, slopes);
        if constexpr (Plan::ADDS) {
          const uint32_t all_slopes = shared + Plan::D_SCORES_AT + buffer * Plan::D_SCORE_BYTES;
          store_d_scores<Plan>(all_slopes, group, slopes);
          publish_stores();
          begin_products();
          multiply_columns<T, DP, QUERIES>(d_values, weights, d_outputs, true);
          commit_products();
          named_wait(D_SCORES_READY, Plan::CONSUMERS * GROUP_THREADS);
          const auto multiply_rest = [&](float(&d_queries)[32]) {
            begin_products();
            multiply_transposed<T, SUM_COLUMNS, Plan::ROWS>(
                d_queries, all_slopes + sum_row<Plan>(group) / PANEL_COLUMNS * Plan::ROWS * PANEL_ROW_BYTES,
                shared + sum_column<Plan>(group) / PANEL_COLUMNS * Plan::ROWS * PANEL_ROW_BYTES);
            commit_products();
            if constexpr (Plan::SHARES_D_SCORES) {
              multiply_shared<T, DP, QUERIES, Plan::ROWS>(d_keys, all_slopes + group * GROUP_ROWS * PANEL_ROW_BYTES,
                                                          queries);
            } else {
              multiply_columns<T, DP, QUERIES>(d_keys, slopes, queries, true);
            }
            commit_products();
            await_products<1>();
            const int64_t row = head * call.query_place.rows + place.query_start + tile * QUERIES;
            add_to_sums<Plan>(call.d_q_sums + row * DP, shared, group, d_queries);
          };
          if constexpr (Plan::SHARES_D_SCORES) {
            float d_queries[32];
            multiply_rest(d_queries);
          } else {
            // Registers that dP has no more use for; otherwise there are too few (C7512).
            multiply_rest(reinterpret_cast<float(&)[32]>(d_scores));
          }
          buffer ^= 1;
        } else {
          begin_products();
          multiply_columns<T, DP, QUERIES>(d_values, weights, d_outputs, true);
          multiply_columns<T, DP, QUERIES>(d_keys, slopes, queries, true);
          commit_products();
        }
        ring.advance();
        tile++;
        if (tile == tiles.last) {
          tile = tiles.first;
          head++;
        }
        if constexpr (!decltype(is_last)::value) {
          wait(barriers.full(ring.stage()), ring.phase());
          begin_tile();
          if constexpr (Plan::ADDS) {
            await_products<1>();
            if (speaks) {
              arrive(barriers.empty(ring.stage_before()));
            }
          }
        }
      };
      for (int steps = heads * tiles.count(); steps > 1; steps--) {
        step(std::false_type());
      }
      step(std::true_type());
      await_products<0>();
      if (speaks) {
        arrive(barriers.empty(ring.stage_before()));
        arrive(barriers.keys_empty());
      }
    }
    const HeadPlace to_place = place_keys(call, work);
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const int key = first_key + row * 8;
      if (key >= to_place.sees.keys) {
        continue;
      }
      if (call.d_k) {
        float* to = call.d_k +
            row_index(call.k_strides, to_place.key_batch, to_place.key_first + key, to_place.key_head);
        const bool by_pairs = has_pairs(call.d_k, call.k_strides, call.head_size);
        store_row(row, to, call.head_size, d_keys, scales.d_key, false, by_pairs);
      }
      if (call.d_v) {
        float* to = call.d_v +
            row_index(call.v_strides, to_place.key_batch, to_place.key_first + key, to_place.key_head);
        const bool by_pairs = has_pairs(call.d_v, call.v_strides, call.value_size);
        store_row(row, to, call.value_size, d_values, scales.d_value, false, by_pairs);
      }
    }
  }
  if (Plan::ADDS && speaks) {
    await_adding();
  }
}

template <typename T, typename Plan>
__device__ __forceinline__ void key_gradient(const HopperParams& params) {
  const uint32_t shared = shared_start();
  run_groups<Plan, KeyGradientBarriers<Plan>>(
      shared, [&] { feed_key_gradient<Plan>(params, shared); },
      [&](int group) { gather_key_gradient<T, Plan>(params, shared, group); });
}

}  // namespace hopper
}  // namespace flash_attention
