// Tiles of canonical rows: from global to shared memory, and from there to fragments and products.
#pragma once

#include "layout.h"
#include "mma.cuh"

namespace flash_attention {
namespace cuda {

/** Bytes of a tile with all its pieces, which lie one after the other. */
template <class Kind, int ROWS, int DP>
constexpr int TILE_BYTES = Kind::PIECES * ROWS * DP * 2;

/** Starts the copy of ROWS rows from `row` on. */
template <class Kind, int ROWS, int DP, int THREADS>
__device__ __forceinline__ void copy_tile(uint32_t to, const Operand& from, int64_t row) {
  constexpr int OF_ROW = DP / CHUNK, AT_ONCE = THREADS / OF_ROW, ROUNDS = ROWS / AT_ONCE;
  static_assert(ROWS % AT_ONCE == 0 && (AT_ONCE & (AT_ONCE - 1)) == 0, "whole rounds of rows");
  const int first = threadIdx.x / OF_ROW, chunk = threadIdx.x % OF_ROW;
  const uint32_t base = to + chunk_offset<DP>(first, chunk);
#pragma unroll
  for (int piece = 0; piece < Kind::PIECES; piece++) {
    const uint16_t* source = (piece == 0 ? from.high : from.low) + (row + first) * DP + chunk * CHUNK;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
      // Rows of later rounds differ in the same bits for all threads, so their places follow from the first's.
      const uint32_t at = base ^ ((round * AT_ONCE & 7) * CHUNK_BYTES);
      copy_16_async(at + (piece * ROWS + round * AT_ONCE) * DP * 2, source + round * AT_ONCE * DP);
    }
  }
}

/**
 * Keeps ptxas from moving loads of fragments further ahead than this, where accumulators leave few registers: without
 * it the widest kernels spill.
 */
template <bool TIGHT>
__device__ __forceinline__ void hold_loads() {
  if constexpr (TIGHT) {
    __syncwarp();
  }
}

/** `x`, and what follows from it is not computed once for all rounds of a loop and kept in registers. */
__device__ __forceinline__ int each_time(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/**
 * One step of 16 of k: two n-tiles against one m-tile. The small products of split operands have sums of their own:
 * tensor cores cut sums off instead of rounding them, and here that takes 2^-11 of what it would. EXACT: low·low too,
 * up to 2^-22 of a product.
 */
template <class Kind, bool EXACT = false>
__device__ __forceinline__ void multiply_pieces(float (&c0)[4], float (&c1)[4], float (&small0)[4], float (&small1)[4],
                                                const uint32_t (&a)[Kind::PIECES][4],
                                                const uint32_t (&b)[Kind::PIECES][4]) {
  if constexpr (EXACT) {
    Kind::multiply(small0, a[1], b[1][0], b[1][1]);
    Kind::multiply(small1, a[1], b[1][2], b[1][3]);
  }
  if constexpr (Kind::PIECES == 2) {
    Kind::multiply(small0, a[0], b[1][0], b[1][1]);
    Kind::multiply(small1, a[0], b[1][2], b[1][3]);
    Kind::multiply(small0, a[1], b[0][0], b[0][1]);
    Kind::multiply(small1, a[1], b[0][2], b[0][3]);
  }
  Kind::multiply(c0, a[0], b[0][0], b[0][1]);
  Kind::multiply(c1, a[0], b[0][2], b[0][3]);
}

/**
 * c[m][n] += left·rightᵀ, with rows of both from shared memory: M·16 rows of `left` from `left_row` on, N·8 rows of
 * `right` from `right_row` on. LEFT_ROWS and RIGHT_ROWS: those of the whole tiles, which tell the pieces apart.
 */
template <class Kind, int DP, int LEFT_ROWS, int RIGHT_ROWS, bool TIGHT, int M, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[M][N][4], uint32_t left, int left_row, uint32_t right,
                                              int right_row) {
  const int lane = threadIdx.x & 31;
  const ChunkPlace a_place = left_place(lane), b_place = right_place(lane);
  const uint32_t a_base = left + chunk_offset<DP>(left_row + a_place.row, a_place.chunk);
  const uint32_t b_base = right + chunk_offset<DP>(right_row + b_place.row, b_place.chunk);
  float small[M][N][4] = {};
#pragma unroll(TIGHT ? (Kind::PIECES == 2 ? 1 : 2) : Kind::PIECES == 2 ? 2 : DP / 16)
  for (int k = 0; k < DP / 16; k++) {
    hold_loads<TIGHT>();
    const uint32_t a_at = move_chunks(a_base, 2 * k), b_at = move_chunks(b_base, 2 * k);
    uint32_t a[M][Kind::PIECES][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int piece = 0; piece < Kind::PIECES; piece++) {
        load_matrices(a[m][piece], a_at + (piece * LEFT_ROWS + m * 16) * DP * 2);
      }
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[Kind::PIECES][4];
#pragma unroll
      for (int piece = 0; piece < Kind::PIECES; piece++) {
        load_matrices(b[piece], b_at + (piece * RIGHT_ROWS + n * 8) * DP * 2);
      }
#pragma unroll
      for (int m = 0; m < M; m++) {
        multiply_pieces<Kind>(c[m][n], c[m][n + 1], small[m][n], small[m][n + 1], a[m], b);
      }
    }
  }
  if constexpr (Kind::PIECES == 2) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          c[m][n][i] += small[m][n][i];
        }
      }
    }
  }
}

/** Scores or weights of 16 × N·8 as left operands of the next product, with the sums over their columns to come. */
template <class Kind, int N>
struct LeftFragments {
  uint32_t of[N / 2][Kind::PIECES][4];

  __device__ __forceinline__ void set(const float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t pieces[Kind::PIECES];
        pack_pieces<Kind>(c[n][2 * half], c[n][2 * half + 1], pieces);
#pragma unroll
        for (int piece = 0; piece < Kind::PIECES; piece++) {
          of[n / 2][piece][(n & 1) * 2 + half] = pieces[piece];
        }
      }
    }
  }
};

/** Multiplies an accumulator's rows, unless all of a warp's factors are 1, which they mostly are. */
template <int M, int N>
__device__ __forceinline__ void scale_rows(float (&c)[M][N][4], const float (&scale)[M][2]) {
  bool is_one = true;
#pragma unroll
  for (int m = 0; m < M; m++) {
    is_one = is_one && scale[m][0] == 1.f && scale[m][1] == 1.f;
  }
  if (__all_sync(0xffffffffu, is_one)) {
    return;
  }
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        c[m][n][i] *= scale[m][i / 2];
      }
    }
  }
}

/**
 * c[m][·] += left·right, with N·8 rows of `right` from `right_row` on and all of its DP columns. With split operands
 * each call sums from zero and is then added: tensor cores cut sums off instead of rounding them, which over thousands
 * of keys is a bias.
 */
template <class Kind, int DP, int RIGHT_ROWS, bool TIGHT, bool EXACT = false, int M, int N>
__device__ __forceinline__ void multiply_columns(float (&c)[M][DP / 8][4], const LeftFragments<Kind, N> (&left)[M],
                                                 uint32_t right, int right_row) {
  const ChunkPlace place = right_transposed_place(threadIdx.x & 31);
  const uint32_t base = right + chunk_offset<DP>(right_row + place.row, place.chunk);
#pragma unroll
  for (int n = 0; n < DP / 8; n += 2) {
    hold_loads<(TIGHT || Kind::PIECES == 2)>();
    const uint32_t at = move_chunks(base, n);
    // Never so. But ptxas moves no product over a branch: it would begin so many before their sums are added that the
    // widest kernels spill.
    if (Kind::PIECES == 2 && DP >= 256 && n % 8 == 0 && at == 0xffffffffu) {
      return;
    }
    float sums[M][2][4], small[M][2][4] = {};
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& here = c[m][n + i / 4][i % 4];
        sums[m][i / 4][i % 4] = Kind::PIECES == 2 ? 0.f : here;
      }
    }
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
      hold_loads<(TIGHT && Kind::PIECES == 2)>();
      uint32_t b[Kind::PIECES][4];
#pragma unroll
      for (int piece = 0; piece < Kind::PIECES; piece++) {
        load_matrices_transposed(b[piece], at + (piece * RIGHT_ROWS + k * 16) * DP * 2);
      }
#pragma unroll
      for (int m = 0; m < M; m++) {
        multiply_pieces<Kind, EXACT>(sums[m][0], sums[m][1], small[m][0], small[m][1], left[m].of[k], b);
      }
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& here = c[m][n + i / 4][i % 4];
        here = Kind::PIECES == 2 ? here + (sums[m][i / 4][i % 4] + small[m][i / 4][i % 4]) : sums[m][i / 4][i % 4];
      }
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
