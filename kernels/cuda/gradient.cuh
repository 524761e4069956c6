// The backward pass of FlashAttention-2 (Dao, 2023, algorithm 2) as two kernels that sum in a fixed order: a tile of
// keys stays and queries come by (dK, dV), or a tile of queries stays and keys come by (dQ). Scores and dP are computed
// in both: 7 products instead of 5, for the same bits every time.
#pragma once

#include "pair_gradients.cuh"

namespace flash_attention {
namespace cuda {

/**
 * dV of fewer queries may be a single product of a weight near 1, which plain float32 attention rounds once: there low·low
 * counts too (without it 1.01 times the allowed error was seen). Sums of more lose more by plain float32.
 */
constexpr int FEW_TERMS = 32;

/** What a kernel computes. Where a thread's registers do not hold the sums of both: a kernel each. */
enum class Role { d_key_value, d_key, d_value };

template <class Tile>
struct GradientMemory {
  uint32_t fixed_1, fixed_2, stages;
  unsigned char* data;

  __device__ __forceinline__ explicit GradientMemory(unsigned char* shared)
      : fixed_1(shared_address(shared)), fixed_2(fixed_1 + Tile::FIXED_BYTES), stages(fixed_2 + Tile::FIXED_BYTES),
        data(shared + 2 * Tile::FIXED_BYTES) {}
  __device__ __forceinline__ uint32_t moving_1(int stage) const { return stages + stage * Tile::STAGE_BYTES; }
  __device__ __forceinline__ uint32_t moving_2(int stage) const { return moving_1(stage) + Tile::MOVING_BYTES; }
  __device__ __forceinline__ const float* statistics(int stage) const {
    return reinterpret_cast<const float*>(data + stage * Tile::STAGE_BYTES + 2 * Tile::MOVING_BYTES);
  }
};

/** LSE high and low and D of the rows that come by. */
template <class Tile>
__device__ __forceinline__ void copy_statistics(const Params& p, const float* to, int64_t row) {
  const uint32_t address = shared_address(to);
  for (int n = threadIdx.x; n < 3 * Tile::MOVING; n += Tile::THREADS) {
    const int which = n / Tile::MOVING, at = n % Tile::MOVING;
    const float* from = which == 0 ? p.lse_high : which == 1 ? p.lse_low : p.delta;
    copy_4_async(address + n * 4, from + row + at);
  }
}

/** Walks `count` steps; `copy(step, stage)` starts a step's copies, `work(step, stage)` runs when they are there. */
template <int STAGES, class Copy, class Work>
__device__ __forceinline__ void walk(int count, const Copy& copy, const Work& work) {
  if (STAGES == 2 && count > 0) {
    copy(0, 0);
    commit_copies();
  }
#pragma unroll 1
  for (int step = 0; step < count; step++) {
    const int next = step + STAGES - 1;
    if (next < count) {
      copy(next, next % STAGES);
    }
    commit_copies();
    wait_copies<STAGES - 1>();
    __syncthreads();
    work(step, step % STAGES);
    __syncthreads();
  }
}

/** Writes 16 rows of sums of a warp to rows of a gradient. */
template <int DP>
__device__ __forceinline__ void store_sums(const float (&sums)[1][DP / 8][4], float scale, int size, float* row_0,
                                           float* row_1, bool zero_0, bool zero_1) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < DP / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int d = n * 8 + accumulator_column(lane, i);
      float* to = i < 2 ? row_0 : row_1;
      if (to && d < size) {
        to[d] = (i < 2 ? zero_0 : zero_1) ? 0.f : sums[0][n][i] * scale;
      }
    }
  }
}

/** dQ of a tile of queries. Grid: x tiles, y query heads, z batches. */
template <class Tile, bool GENERAL>
__device__ __forceinline__ void d_query_tile(const Params& p) {
  using Kind = typename Tile::Kind;
  constexpr int DP = Tile::DP;
  extern __shared__ __align__(SHARED_ALIGNMENT) unsigned char shared[];
  const GradientMemory<Tile> memory(shared);
  const int batch = blockIdx.z, head = blockIdx.y, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first_row = (gridDim.x - 1 - blockIdx.x) * Tile::ROWS;
  const int key_head = head / (p.query_heads / p.key_heads);
  const SequencePlace sequence = p.places[batch];
  if (first_row >= sequence.query_rows) {
    return;
  }
  const Band band(p, sequence);
  // General kernels read them again from shared memory in each chunk, plain ones have the registers for them.
  __shared__ GradientScales shared_scales;
  GradientScales own_scales = {};
  if (!GENERAL || threadIdx.x == 0) {
    own_scales = gradient_scales<Kind>(p, p.groups[batch * p.key_heads + key_head]);
  }
  if constexpr (GENERAL) {
    if (threadIdx.x == 0) {
      shared_scales = own_scales;
    }
    __syncthreads();
  }
  const GradientScales& scales = GENERAL ? shared_scales : own_scales;
  float sums[1][DP / 8][4] = {};
  if (first_row < sequence.queries) {
    const int last_row = min(first_row + Tile::ROWS, sequence.queries) - 1;
    const int begin = band.key_begin(first_row) / Tile::MOVING * Tile::MOVING, end = band.key_end(last_row);
    const int64_t query_row = head * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + first_row;
    const int64_t key_row = key_head * p.key_place.rows + p.key_place.start(batch, sequence.key_first) + begin;
    copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_1, p.q16, query_row);
    copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_2, p.d_output16, query_row);
    RowStatistics own[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t at = query_row + warp * 16 + accumulator_row(lane, 2 * half);
      own[half] = {p.lse_high[at], p.lse_low[at], p.delta[at] * scales.delta};
    }
    walk<Tile::STAGES>(
        begin < end ? (end - begin + Tile::MOVING - 1) / Tile::MOVING : 0,
        [&](int step, int stage) {
          const int64_t row = key_row + step * Tile::MOVING;
          copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_1(stage), p.k16, row);
          copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_2(stage), p.v16, row);
        },
        [&](int step, int stage) {
#pragma unroll 1
          for (int first = 0; first < Tile::MOVING; first += Tile::COLUMNS) {
            const int key = begin + step * Tile::MOVING + first;
            const int query = GENERAL && Kind::PIECES == 2 && DP >= 128 ? each_time(first_row) : first_row;
            // What is full is not asked pair by pair: general kernels read masks and biases there.
            const int last_full = GENERAL ? query + Tile::ROWS - 1 : last_row;
            const bool is_full = band.is_full(query, last_full, key, key + Tile::COLUMNS);
            float weights[1][Tile::N][4], d_scores[1][Tile::N][4];
            pair_gradients<Tile, false, GENERAL, true, false>(
                p, band, {batch, head, query + warp * 16, key}, is_full, scales, memory.fixed_1, memory.fixed_2,
                memory.moving_1(stage), memory.moving_2(stage), first, nullptr, own, weights, d_scores);
            LeftFragments<Kind, Tile::N> left[1];
            left[0].set(d_scores[0]);
            multiply_columns<Kind, DP, Tile::MOVING, Tile::TIGHT>(sums, left, memory.moving_1(stage), first);
          }
        });
  }
  const int row_0 = first_row + warp * 16 + accumulator_row(lane, 0), row_1 = row_0 + 8;
  float* to = p.d_q + query_element(p.q_strides, sequence, batch, head, 0);
  store_sums<DP>(sums, scales.d_query, p.head_size,
                 row_0 < sequence.query_rows ? to + row_0 * p.q_strides.row : nullptr,
                 row_1 < sequence.query_rows ? to + row_1 * p.q_strides.row : nullptr, row_0 >= sequence.queries,
                 row_1 >= sequence.queries);
}

/** Reads again what the loop does not need: kept over it, it would cost registers. */
template <class Tile, bool D_KEY, bool D_VALUE>
__device__ __forceinline__ void store_key_sums(const Params& p, int batch, int key_head, int first_key,
                                               const float (&d_key)[1][D_KEY ? Tile::DP / 8 : 1][4],
                                               const float (&d_value)[1][D_VALUE ? Tile::DP / 8 : 1][4]) {
  constexpr int DP = Tile::DP;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const SequencePlace sequence = p.places[batch];
  const GradientScales scales =
      gradient_scales<typename Tile::Kind>(p, p.groups[batch * p.key_heads + key_head]);
  const int key_0 = first_key + warp * 16 + accumulator_row(lane, 0), key_1 = key_0 + 8;
  if (D_KEY && p.d_k) {
    float* to = p.d_k + key_element(p, p.k_strides, sequence, key_head, 0);
    store_sums<D_KEY ? DP : 8>(d_key, scales.d_key, p.head_size,
                               key_0 < sequence.keys ? to + key_0 * p.k_strides.row : nullptr,
                               key_1 < sequence.keys ? to + key_1 * p.k_strides.row : nullptr, false, false);
  }
  if (D_VALUE && p.d_v) {
    float* to = p.d_v + key_element(p, p.v_strides, sequence, key_head, 0);
    store_sums<D_VALUE ? DP : 8>(d_value, scales.d_value, p.value_size,
                                 key_0 < sequence.keys ? to + key_0 * p.v_strides.row : nullptr,
                                 key_1 < sequence.keys ? to + key_1 * p.v_strides.row : nullptr, false, false);
  }
}

/** dK and dV of a tile of keys. Grid: x tiles, y key heads, z batches. */
template <class Tile, bool GENERAL, Role ROLE>
__device__ __forceinline__ void d_key_tile(const Params& p) {
  using Kind = typename Tile::Kind;
  constexpr int DP = Tile::DP;
  constexpr bool D_KEY = ROLE != Role::d_value, D_VALUE = ROLE != Role::d_key;
  extern __shared__ __align__(SHARED_ALIGNMENT) unsigned char shared[];
  const GradientMemory<Tile> memory(shared);
  const int batch = blockIdx.z, key_head = blockIdx.y, warp = threadIdx.x >> 5;
  const int first_key = blockIdx.x * Tile::ROWS, group = p.query_heads / p.key_heads;
  const SequencePlace sequence = p.places[batch];
  if (first_key >= sequence.keys) {
    return;
  }
  const Band band(p, sequence);
  __shared__ GradientScales scales;  // read from there by each chunk: registers are short
  if (threadIdx.x == 0) {
    scales = gradient_scales<Kind>(p, p.groups[batch * p.key_heads + key_head]);
  }
  const int last_key = min(first_key + Tile::ROWS, sequence.keys) - 1;
  const int begin = band.query_begin(first_key) / Tile::MOVING * Tile::MOVING, end = band.query_end(last_key);
  const int steps = begin < end ? (end - begin + Tile::MOVING - 1) / Tile::MOVING : 0;
  const int64_t key_row = key_head * p.key_place.rows + p.key_place.start(batch, sequence.key_first) + first_key;
  const int64_t query_row = p.query_place.start(batch, sequence.query_first) + begin;
  const auto row_of = [&](int step) {
    const int head = key_head * group + step / steps;
    return head * p.query_place.rows + query_row + step % steps * Tile::MOVING;
  };
  float d_key[1][D_KEY ? DP / 8 : 1][4] = {}, d_value[1][D_VALUE ? DP / 8 : 1][4] = {};
  copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_1, p.k16, key_row);
  if constexpr (D_KEY) {
    copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(memory.fixed_2, p.v16, key_row);
  }
  walk<Tile::STAGES>(
      steps * group,
      [&](int step, int stage) {
        const int64_t row = row_of(step);
        copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_1(stage), p.q16, row);
        copy_tile<Kind, Tile::MOVING, DP, Tile::THREADS>(memory.moving_2(stage), p.d_output16, row);
        copy_statistics<Tile>(p, memory.statistics(stage), row);
      },
      [&](int step, int stage) {
        const int head = GENERAL ? key_head * group + step / steps : 0;
#pragma unroll 1
        for (int first = 0; first < Tile::MOVING; first += Tile::COLUMNS) {
          const int query = begin + step % steps * Tile::MOVING + first;
          // Rows past the last query weigh 0 (params.h), but have no mask and no bias.
          const int query_end = GENERAL ? query + Tile::COLUMNS : min(query + Tile::COLUMNS, band.queries);
          const bool is_full = last_key - first_key == Tile::ROWS - 1 &&
              band.is_full(query, query_end - 1, first_key, last_key + 1);
          float weights[1][Tile::N][4], d_scores[1][Tile::N][4];
          const int own_key = GENERAL ? each_time(first_key + warp * 16) : first_key + warp * 16;
          const RowStatistics none[2] = {};
          pair_gradients<Tile, true, GENERAL, D_KEY, false>(
              p, band, {batch, head, own_key, query}, is_full, scales, memory.fixed_1, memory.fixed_2,
              memory.moving_1(stage), memory.moving_2(stage), first, memory.statistics(stage), none, weights, d_scores);
          LeftFragments<Kind, Tile::N> left[1];
          if constexpr (D_VALUE) {
            left[0].set(weights[0]);
            // At D = 256 the registers do not suffice (sm_80).
            constexpr bool MAY_BE_EXACT = Kind::PIECES == 2 && DP <= 128;
            if (MAY_BE_EXACT && sequence.queries < FEW_TERMS) {
              multiply_columns<Kind, DP, Tile::MOVING, Tile::TIGHT, MAY_BE_EXACT>(d_value, left,
                                                                                  memory.moving_2(stage), first);
            } else {
              multiply_columns<Kind, DP, Tile::MOVING, Tile::TIGHT>(d_value, left, memory.moving_2(stage), first);
            }
          }
          if constexpr (D_KEY) {
            left[0].set(d_scores[0]);
            multiply_columns<Kind, DP, Tile::MOVING, Tile::TIGHT>(d_key, left, memory.moving_1(stage), first);
          }
        }
      });
  store_key_sums<Tile, D_KEY, D_VALUE>(p, batch, key_head, first_key, d_key, d_value);
}

}  // namespace cuda
}  // namespace flash_attention
