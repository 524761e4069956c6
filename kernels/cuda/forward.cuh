// The forward pass of FlashAttention-2 (Dao, 2023, algorithm 1) with mma.sync. A block of threads owns a tile of query
// rows and walks the tiles of keys; K's and V's buffers fill while the other's product runs.
#pragma once

#include "softmax.cuh"
#include "tiles.cuh"

namespace flash_attention {
namespace cuda {

/** M: m-tiles of 16 rows of a warp. BLOCKS: that should fit a multiprocessor's registers. */
template <class Kind_, int DP_, int WARPS_, int M_, int KEYS_, int BLOCKS_>
struct ForwardTile {
  using Kind = Kind_;
  static constexpr int DP = DP_, WARPS = WARPS_, M = M_, KEYS = KEYS_, BLOCKS = BLOCKS_;
  static constexpr int THREADS = WARPS * 32, ROWS = WARPS * M * 16;
  static constexpr int QUERY_BYTES = TILE_BYTES<Kind, ROWS, DP>, KEY_BYTES = TILE_BYTES<Kind, KEYS, DP>;
  static constexpr bool TIGHT = M * DP * Kind::PIECES >= 256;
  static constexpr int SHARED_BYTES = QUERY_BYTES + 2 * KEY_BYTES;
  static_assert(TILE_ROWS % ROWS == 0 && TILE_ROWS % KEYS == 0, "tiles do not cross batches");
};

/** The keys that some row of a tile sees, and those that all see as far as lengths and window tell. */
struct KeyRange {
  int begin, end, full_begin, full_end;
};

__device__ __forceinline__ KeyRange key_range(const Params& p, const Band& band, int first_row, int rows) {
  const int last_row = min(first_row + rows, p.unit_rows) - 1;
  int first = first_row, last = last_row;
  if (p.heads_per_unit > 1) {
    const bool same_head = first_row / p.query_length == last_row / p.query_length;
    first = same_head ? first_row % p.query_length : 0;
    last = same_head ? last_row % p.query_length : p.query_length - 1;
  }
  last = min(last, band.queries - 1);
  if (first > last) {
    return {0, 0, 0, 0};
  }
  return {band.key_begin(first), band.key_end(last), band.key_begin(last), band.key_end(first)};
}

/** Where the rows of a lane belong: m-tile and half. Not kept over the loop: registers are short. */
template <class Tile>
__device__ __forceinline__ RowPlace lane_place(const Params& p, int unit, int first_row, int m, int half) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int row = first_row + warp * Tile::M * 16 + m * 16 + accumulator_row(lane, 2 * half);
  return row_place(p, unit, min(row, p.unit_rows - 1));
}

/** Scales, bends and hides the scores of one tile. Gives what is left to multiply them by. */
template <class Tile, bool GENERAL, int M, int N>
__device__ __forceinline__ float complete_scores(const Params& p, int batch, int unit, int first_row,
                                                 float (&scores)[M][N][4], int key, bool is_full,
                                                 float natural_scale) {
  const int lane = threadIdx.x & 31;
  if constexpr (GENERAL) {
    const Band band(p, p.places[batch]);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const RowPlace place = lane_place<Tile>(p, unit, first_row, m, i / 2);
#pragma unroll
        for (int n = 0; n < N; n++) {
          const int here = key + n * 8 + accumulator_column(lane, i);
          float slope;
          float& score = scores[m][n][i];
          score = band.sees(place.query, here)
              ? finish_score(p, band, batch, place.head, place.query, here, score * natural_scale, &slope)
              : -INFINITE;
        }
      }
    }
    return 1.f;
  }
  if (!is_full) {
    const Band band(p, p.places[batch]);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int query = lane_place<Tile>(p, unit, first_row, m, half).query;
        const int begin = band.key_begin(query), end = band.key_end(query);
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            const int here = key + n * 8 + accumulator_column(lane, i);
            scores[m][n][i] = here >= begin && here < end ? scores[m][n][i] : -INFINITE;
          }
        }
      }
    }
  }
  return natural_scale * LOG2_E;
}

/** Zeroes the weights that are dropped; those kept grow when the output is written. */
template <class Tile, int M, int N>
__device__ __forceinline__ void drop_weights(const Params& p, int batch, int unit, int first_row,
                                             float (&weights)[M][N][4], int key) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const RowPlace place = lane_place<Tile>(p, unit, first_row, m, half);
#pragma unroll
      for (int n = 0; n < N; n++) {
        const int here = key + n * 8 + accumulator_column(lane, 0);
        const uint4 words = philox(p, batch, place.head, place.query, here >> 2);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float& weight = weights[m][n][2 * half + i];
          weight = is_kept(p, words, (here & 3) + i) ? weight : 0.f;
        }
      }
    }
  }
}

template <class Tile>
__device__ __forceinline__ void store_rows(const Params& p, int batch, int unit, int part, int first_row,
                                           float (&output)[Tile::M][Tile::DP / 8][4], RunningSoftmax<Tile::M>& state,
                                           float value_scale) {
  // Read again: kept over the loop they would cost registers.
  const SequencePlace sequence = p.places[batch];
  constexpr float MOST = static_cast<float>(1 << Tile::Kind::WEIGHT_EXPONENT);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int m = 0; m < Tile::M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first_row + warp * Tile::M * 16 + m * 16 + accumulator_row(lane, 2 * half);
      const RowPlace place = lane_place<Tile>(p, unit, first_row, m, half);
      float largest = state.largest[m][half], denominator = sum_of_quad(state.denominator[m][half]);
      bool is_empty = denominator == 0;
      if (row >= p.unit_rows || place.query >= sequence.query_rows) {
        continue;
      }
      if (place.query >= sequence.queries) {
        is_empty = true;
        begin_softmax<typename Tile::Kind>(largest, denominator, part == 0 ? p.sinks : nullptr, place.head, true);
      }
      float* to;
      float scale;
      if (p.parts > 1) {
        const int64_t at = (static_cast<int64_t>(part) * p.units + unit) * p.query_place.rows +
                           p.query_place.start(batch, sequence.query_first) + row;
        to = p.part_output + at * p.value_size;
        scale = is_empty ? 0.f : value_scale / MOST;
        if ((lane & 3) == 0) {
          p.part_state[2 * at] = largest;
          p.part_state[2 * at + 1] = denominator / MOST;
        }
      } else {
        to = p.output + query_element(p.output_strides, sequence, batch, place.head, place.query);
        scale = is_empty ? 0.f : value_scale / denominator;
        if ((lane & 3) == 0) {
          store_lse(p, lse_index(p, sequence, batch, place.head, place.query), largest,
                    static_cast<double>(denominator) / MOST);
        }
      }
#pragma unroll
      for (int n = 0; n < Tile::DP / 8; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int d = n * 8 + accumulator_column(lane, i);
          if (d < p.value_size) {
            to[d] = is_empty ? 0.f : output[m][n][2 * half + i] * scale;
          }
        }
      }
    }
  }
}

/** Grid: x query tiles · parts, y units, z batches. The tiles that see most of a causal call come first. */
template <class Tile, bool GENERAL>
__device__ __forceinline__ void forward_tile(const Params& p) {
  using Kind = typename Tile::Kind;
  constexpr int M = Tile::M, N = Tile::KEYS / 8, DP = Tile::DP;
  extern __shared__ __align__(SHARED_ALIGNMENT) unsigned char shared[];
  const uint32_t queries = shared_address(shared), keys = queries + Tile::QUERY_BYTES, values = keys + Tile::KEY_BYTES;
  const int tiles = gridDim.x / p.parts, batch = blockIdx.z, unit = blockIdx.y;
  const int part = blockIdx.x % p.parts, first_row = (tiles - 1 - static_cast<int>(blockIdx.x) / p.parts) * Tile::ROWS;
  const SequencePlace sequence = p.places[batch];
  if (p.heads_per_unit == 1 && first_row >= sequence.query_rows) {
    return;
  }
  const Band band(p, sequence);
  const GroupState& group = p.groups[batch * p.key_heads + key_head_of(p, unit)];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;

  RunningSoftmax<M> state;
  float output[M][DP / 8][4] = {};
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      begin_softmax<Kind>(state.largest[m][half], state.denominator[m][half], part == 0 ? p.sinks : nullptr,
                          lane_place<Tile>(p, unit, first_row, m, half).head, (lane & 3) == 0);
    }
  }
  const float natural_scale =
      p.softmax_scale * power_of_two(-exponent_for(group.q) - exponent_for(group.k));
  KeyRange range = key_range(p, band, first_row, Tile::ROWS);
  if (p.parts > 1) {
    range.begin = max(range.begin / Tile::KEYS * Tile::KEYS, part * p.part_keys);
    range.end = min(range.end, (part + 1) * p.part_keys);
  } else {
    range.begin = range.begin / Tile::KEYS * Tile::KEYS;
  }

  if (range.begin < range.end) {
    const int64_t query_row = unit * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + first_row;
    const int64_t key_row =
        key_head_of(p, unit) * p.key_place.rows + p.key_place.start(batch, sequence.key_first);
    copy_tile<Kind, Tile::ROWS, DP, Tile::THREADS>(queries, p.q16, query_row);
    copy_tile<Kind, Tile::KEYS, DP, Tile::THREADS>(keys, p.k16, key_row + range.begin);
    commit_copies();
#pragma unroll 1
    for (int key = range.begin; key < range.end; key += Tile::KEYS) {
      wait_copies<0>();
      __syncthreads();
      copy_tile<Kind, Tile::KEYS, DP, Tile::THREADS>(values, p.v16, key_row + key);
      commit_copies();
      float scores[M][N][4] = {};
      multiply_rows<Kind, DP, Tile::ROWS, Tile::KEYS, Tile::TIGHT>(scores, queries, warp * M * 16, keys, 0);
      wait_copies<0>();
      __syncthreads();
      if (key + Tile::KEYS < range.end) {
        copy_tile<Kind, Tile::KEYS, DP, Tile::THREADS>(keys, p.k16, key_row + key + Tile::KEYS);
        commit_copies();
      }
      const bool is_full = key >= range.full_begin && key + Tile::KEYS <= range.full_end;
      const float scale = complete_scores<Tile, GENERAL>(p, batch, unit, first_row, scores, key, is_full,
                                                            natural_scale);
      float rescale[M][2];
      weigh_scores<Kind>(scores, scale, state, rescale);
      scale_rows(output, rescale);
      if (GENERAL && p.dropout) {
        drop_weights<Tile>(p, batch, unit, first_row, scores, key);
      }
      LeftFragments<Kind, N> weights[M];
#pragma unroll
      for (int m = 0; m < M; m++) {
        weights[m].set(scores[m]);
      }
      multiply_columns<Kind, DP, Tile::KEYS, Tile::TIGHT>(output, weights, values, 0);
    }
  }
  const float kept = p.dropout ? p.kept_scale : 1.f;
  const uint32_t largest_value = p.groups[batch * p.key_heads + key_head_of(p, unit)].v;
  store_rows<Tile>(p, batch, unit, part, first_row, output, state,
                   kept * power_of_two(-exponent_for(largest_value)));
}

}  // namespace cuda
}  // namespace flash_attention
