// The forward pass on Hopper, after FlashAttention-3 (Shah et al., 2024): one warp feeds K and V by TMA, warpgroups of
// 64 queries each take turns at the tensor cores (a group's softmax runs under another's products), and inside a group
// the scores of the next tile are computed while the weights of this one meet V. Blocks stay and take tile after tile.
#pragma once

#include <type_traits>

#include "call.cuh"
#include "groups.cuh"
#include "tma.cuh"

namespace flash_attention {
namespace hopper {

/**
 * Weights as operands are multiplied by 2^EXPONENT, and the running maximum may grow by GROWTH powers of two before what
 * was summed is brought to it. f16 holds all of the 15 that they come to, and rounds no weight by more than 2^-38 of the
 * row's largest beside its 2^-11: so tensorfloat32 may run on it (ARCHITECTURE.md).
 */
template <typename T>
struct WeightRange {
  static constexpr int EXPONENT = 0, GROWTH = 8;
};
template <>
struct WeightRange<Float16> {
  static constexpr int EXPONENT = 13, GROWTH = 2;
};

/** Two rows of queries in a thread: row `accumulator_row(thread, 0)` of the group and the one 8 below. */
struct SoftmaxRows {
  /** The largest product so far, or one that it has not outgrown by GROWTH; −∞ before any. */
  float largest[2];
  /** Of weights 2^(product·scale − largest·scale + EXPONENT), of this thread's columns. */
  float sum[2];
};

/** The keys that a row sees. */
struct RowBounds {
  int begin, end;
};

/** Hides what the two rows do not see. */
template <int KEYS>
__device__ __forceinline__ void hide_products(float (&scores)[KEYS / 2], int first_key, RowBounds upper,
                                              RowBounds lower) {
  const int first = first_key + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    const int key = first + i / 4 * 8 + i % 2, row = i / 2 % 2;
    const RowBounds& sees = row ? lower : upper;
    scores[i] = key >= sees.begin && key < sees.end ? scores[i] : -INFINITE;
  }
}

/**
 * Products become weights, in place, and the state moves on. Gives by what sums so far are to be multiplied, and
 * whether that is 1 for the whole warp.
 */
template <typename T, int KEYS>
__device__ __forceinline__ bool weigh_products(float (&scores)[KEYS / 2], SoftmaxRows& state, float scale,
                                               float (&rescale)[2]) {
  bool grows = false;
  float base[2];
#pragma unroll
  for (int row = 0; row < 2; row++) {
    float largest = scores[row * 2];
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
      largest = fmaxf(largest, fmaxf(scores[i * 4 + row * 2], scores[i * 4 + row * 2 + 1]));
    }
    largest = row_largest(largest);
    // −∞ − −∞ is NaN, and so is not growth.
    const bool outgrown = (largest - state.largest[row]) * scale > WeightRange<T>::GROWTH;
    rescale[row] = outgrown ? exponential((state.largest[row] - largest) * scale) : 1.f;
    state.largest[row] = outgrown ? largest : state.largest[row];
    base[row] = state.largest[row] == -INFINITE ? 0.f : fmaf(state.largest[row], scale, -WeightRange<T>::EXPONENT);
    state.sum[row] *= rescale[row];
    grows = grows || outgrown;
  }
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    const int row = i / 2 % 2;
    scores[i] = exponential(fmaf(scores[i], scale, -base[row]));
    state.sum[row] += scores[i];
  }
  return !__any_sync(0xffffffff, grows);
}

template <int COUNT>
__device__ __forceinline__ void rescale_rows(float (&sums)[COUNT], const float (&factors)[2]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    sums[i] *= factors[i / 2 % 2];
  }
}

/** Writes LSE and what rounding took from it; gives what the row's sums are to be multiplied by. */
__device__ __forceinline__ float finish_row(const cuda::Params& call, int64_t lse_at, bool writes, float largest,
                                            float sum, float scale, float sink) {
  const bool is_empty = sum == 0;
  // In natural logarithms: largest·scale as two floats, then the sink, where it is larger, takes its place.
  const float natural = scale * LN_2;
  float base = is_empty ? -INFINITE : largest * natural;
  float base_tail = is_empty ? 0.f : fmaf(largest, natural, -base);
  float factor = 1;
  if (sink != -INFINITE) {
    const float top = fmaxf(base, sink);
    factor = is_empty ? 0.f : expf(base - top);
    sum = sum * factor + expf(sink == top ? 0.f : sink - top);
    base_tail = base == top ? base_tail : 0.f;
    base = top;
  }
  if (writes) {
    const float logarithm = logf(sum);
    const float total = base + logarithm;
    // Knuth's two-sum: what the addition lost.
    const float added = total - base;
    const float lost = (base - (total - added)) + (logarithm - added);
    const bool is_finite = fabsf(total) < INFINITE;
    call.lse[lse_at] = sum == 0 ? -INFINITE : total;
    call.lse_tail[lse_at] = sum == 0 || !is_finite ? 0.f : lost + base_tail;
  }
  return is_empty ? 0.f : factor / sum;
}

/** Writes one of a thread's two rows: the output, and by one of the four threads that share it the LSE. */
template <int COUNT>
__device__ __forceinline__ void finish_query(const cuda::Params& call, const HeadPlace& place, int first_row, int row,
                                             bool has_tiles, float largest, float part_of_sum, float scale, float sink,
                                             float value_scale, const float (&output)[COUNT], bool by_pairs) {
  const int query = first_row + row * 8;
  const float sum = row_sum(part_of_sum);
  if (query >= place.query_rows) {
    return;
  }
  const bool sees_any = has_tiles && query < place.sees.queries && sum != 0;
  const int64_t lse_at = place.batch * call.lse_batch + place.head * call.lse_head + place.query_first + query;
  const float factor =
      finish_row(call, lse_at, threadIdx.x % 4 == 0, largest, sees_any ? sum : 0.f, scale, sink) * value_scale;
  float* to = call.output + row_index(call.output_strides, place.batch, place.query_first + query, place.head);
  store_row(row, to, call.value_size, output, factor, !sees_any, by_pairs);
}

template <typename Plan>
__device__ __forceinline__ void feed_forward(const HopperParams& params, uint32_t shared) {
  constexpr int DP = Plan::DEPTH, KEYS = Plan::TILE, STAGES = Plan::BUFFERS;
  const QueryBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  prefetch_map(&params.q);
  prefetch_map(&params.k);
  prefetch_map(&params.v);
  Ring<STAGES> keys, values;
  uint32_t queries_phase = 0;
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (WorkTile work = queue.draw(params); work.head >= 0; work = queue.draw(params)) {
    const HeadPlace place = place_queries(params.call, work);
    const TileRange tiles = key_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, KEYS);
    if (tiles.count() == 0) {
      continue;
    }
    const auto load_values = [&](int tile) {
      wait(barriers.values_empty(values.stage()), values.phase() ^ 1);
      arrive_expecting(barriers.values_full(values.stage()), Plan::KEY_BYTES);
      load_tile<KEYS, DP>(shared + Plan::VALUES_AT + values.stage() * Plan::KEY_BYTES, &params.v,
                          barriers.values_full(values.stage()), place.key_start + tile * KEYS, place.key_head);
      values.advance();
    };
    wait(barriers.queries_empty(), queries_phase ^ 1);
    arrive_expecting(barriers.queries_full(), Plan::QUERY_BYTES);
    load_tile<Plan::ROWS, DP>(shared, &params.q, barriers.queries_full(), place.query_start + work.tile * Plan::ROWS,
                              place.head);
    queries_phase ^= 1;
    for (int tile = tiles.last - 1; tile >= tiles.first; tile--) {
      wait(barriers.keys_empty(keys.stage()), keys.phase() ^ 1);
      arrive_expecting(barriers.keys_full(keys.stage()), Plan::KEY_BYTES);
      load_tile<KEYS, DP>(shared + Plan::KEYS_AT + keys.stage() * Plan::KEY_BYTES, &params.k,
                          barriers.keys_full(keys.stage()), place.key_start + tile * KEYS, place.key_head);
      keys.advance();
      // Consumers take K of a tile before V of the one before it.
      if (tile < tiles.last - 1) {
        load_values(tile + 1);
      }
    }
    load_values(tiles.first);
  }
}

/** Warpgroups take turns in a ring: each waits for its own barrier, which the one before it arrives at. */
constexpr int FIRST_TURN = 1;

template <typename T, typename Plan>
__device__ __forceinline__ void attend(const HopperParams& params, uint32_t shared, int group) {
  constexpr int DP = Plan::DEPTH, KEYS = Plan::TILE, STAGES = Plan::BUFFERS, GROUPS = Plan::CONSUMERS;
  const cuda::Params& call = params.call;
  const QueryBarriers<Plan> barriers{shared + Plan::BARRIERS_AT};
  const int thread = threadIdx.x % GROUP_THREADS;
  const bool speaks = thread % 32 == 0;
  const uint32_t my_turn = FIRST_TURN + group, next_turn = FIRST_TURN + (group + 1) % GROUPS;
  const uint32_t queries = shared + group * GROUP_ROWS * PANEL_ROW_BYTES;
  Ring<STAGES> keys, values;
  uint32_t queries_phase = 0;
  if (group == GROUPS - 1) {
    named_arrive(FIRST_TURN, 2 * GROUP_THREADS);
  }
  TileQueue queue(shared + Plan::QUEUE_AT);
  for (;;) {
    const WorkTile work = queue.take(params);
    if (work.head < 0) {
      break;
    }
    const HeadPlace place = place_queries(call, work);
    const TileRange tiles = key_tiles(place.sees, work.tile * Plan::ROWS, Plan::ROWS, KEYS);
    const int first_row = work.tile * Plan::ROWS + group * GROUP_ROWS + accumulator_row(thread, 0);
    const RowBounds upper = {place.sees.key_begin(first_row), place.sees.key_end(first_row)};
    const RowBounds lower = {place.sees.key_begin(first_row + 8), place.sees.key_end(first_row + 8)};
    float scale = call.softmax_scale * LOG2_E;
    if constexpr (std::is_same<T, Float16>::value) {
      const cuda::GroupState& state = group_of(call, place);
      scale *= cuda::power_of_two(-cuda::exponent_for(state.q) - cuda::exponent_for(state.k));
    }
    float output[DP / 2];
    SoftmaxRows state = {{-INFINITE, -INFINITE}, {0, 0}};
    if (tiles.count() > 0) {
      float scores[KEYS / 2];
      uint32_t weights[KEYS / 4];
      float rescale[2];
      wait(barriers.queries_full(), queries_phase);
      queries_phase ^= 1;
      wait(barriers.keys_full(keys.stage()), keys.phase());
      begin_products();
      multiply_rows<T, KEYS, DP, Plan::ROWS>(scores, queries, shared + Plan::KEYS_AT + keys.stage() * Plan::KEY_BYTES);
      commit_products();
      await_products<0>();
      if (speaks) {
        arrive(barriers.keys_empty(keys.stage()));
      }
      keys.advance();
      if (!tiles.is_whole(tiles.last - 1)) {
        hide_products<KEYS>(scores, (tiles.last - 1) * KEYS, upper, lower);
      }
      weigh_products<T, KEYS>(scores, state, scale, rescale);
      pack_operand<T>(scores, weights);
#pragma unroll
      for (int i = 0; i < DP / 2; i++) {
        output[i] = 0;
      }
      for (int tile = tiles.last - 2; tile >= tiles.first; tile--) {
        wait(barriers.keys_full(keys.stage()), keys.phase());
        named_wait(my_turn, 2 * GROUP_THREADS);
        begin_products();
        multiply_rows<T, KEYS, DP, Plan::ROWS>(scores, queries,
                                               shared + Plan::KEYS_AT + keys.stage() * Plan::KEY_BYTES);
        commit_products();
        wait(barriers.values_full(values.stage()), values.phase());
        begin_products();
        multiply_columns<T, DP, KEYS>(output, weights,
                                      shared + Plan::VALUES_AT + values.stage() * Plan::KEY_BYTES, true);
        commit_products();
        named_arrive(next_turn, 2 * GROUP_THREADS);
        await_products<1>();
        if (speaks) {
          arrive(barriers.keys_empty(keys.stage()));
        }
        keys.advance();
        if (!tiles.is_whole(tile)) {
          hide_products<KEYS>(scores, tile * KEYS, upper, lower);
        }
        const bool stays = weigh_products<T, KEYS>(scores, state, scale, rescale);
        await_products<0>();
        if (speaks) {
          arrive(barriers.values_empty(values.stage()));
        }
        values.advance();
        pack_operand<T>(scores, weights);
        if (!stays) {
          rescale_rows(output, rescale);
        }
      }
      if (speaks) {
        arrive(barriers.queries_empty());
      }
      wait(barriers.values_full(values.stage()), values.phase());
      begin_products();
      multiply_columns<T, DP, KEYS>(output, weights, shared + Plan::VALUES_AT + values.stage() * Plan::KEY_BYTES, true);
      commit_products();
      await_products<0>();
      if (speaks) {
        arrive(barriers.values_empty(values.stage()));
      }
      values.advance();
    }
    const HeadPlace to_place = place_queries(call, work);
    const bool by_pairs = has_pairs(call.output, call.output_strides, call.value_size);
    const float sink = call.sinks ? call.sinks[to_place.head] : -INFINITE;
    constexpr float WEIGHT_SCALE = 1.f / (1 << WeightRange<T>::EXPONENT);
    float value_scale = 1;
    if constexpr (std::is_same<T, Float16>::value) {
      value_scale = WEIGHT_SCALE * cuda::power_of_two(-cuda::exponent_for(group_of(call, to_place).v));
    }
    // One row after the other, or the compiler runs out of registers; no array is indexed by `row`.
#pragma unroll 1
    for (int row = 0; row < 2; row++) {
      finish_query(call, to_place, first_row, row, tiles.count() > 0, row ? state.largest[1] : state.largest[0],
                   WEIGHT_SCALE * (row ? state.sum[1] : state.sum[0]), scale, sink, value_scale, output, by_pairs);
    }
  }
}

template <typename T, typename Plan>
__device__ __forceinline__ void forward(const HopperParams& params) {
  const uint32_t shared = shared_start();
  run_groups<Plan, QueryBarriers<Plan>>(
      shared, [&] { feed_forward<Plan>(params, shared); }, [&](int group) { attend<T, Plan>(params, shared, group); });
}

}  // namespace hopper
}  // namespace flash_attention
