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
  constexpr int CHUNKS = ROWS * (DP / CHUNK);
  static_assert(CHUNKS % THREADS == 0, "whole rounds");
#pragma unroll
  for (int piece = 0; piece < Kind::PIECES; piece++) {
    const uint16_t* source = (piece == 0 ? from.high : from.low) + row * DP;
#pragma unroll
    for (int round = 0; round < CHUNKS / THREADS; round++) {
      const int n = round * THREADS + threadIdx.x;
      copy_16_async(to + piece * ROWS * DP * 2 + chunk_offset<DP>(n / (DP / CHUNK), n % (DP / CHUNK)),
                    source + n * CHUNK);
    }
  }
}

/**
 * c[n] += left·rightᵀ, with rows of both from shared memory: 16 rows of `left` from `left_row` on, N·8 rows of `right`
 * from `right_row` on. LEFT_ROWS and RIGHT_ROWS: those of the whole tiles, which tell the pieces apart.
 */
template <class Kind, int DP, int LEFT_ROWS, int RIGHT_ROWS, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[N][4], uint32_t left, int left_row, uint32_t right,
                                              int right_row) {
  const int lane = threadIdx.x & 31;
  const ChunkPlace a_place = left_place(lane), b_place = right_place(lane);
#pragma unroll
  for (int k = 0; k < DP / 16; k++) {
    uint32_t a[Kind::PIECES][4];
#pragma unroll
    for (int piece = 0; piece < Kind::PIECES; piece++) {
      load_matrices(a[piece], left + piece * LEFT_ROWS * DP * 2 +
                                  chunk_offset<DP>(left_row + a_place.row, 2 * k + a_place.chunk));
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[Kind::PIECES][4];
#pragma unroll
      for (int piece = 0; piece < Kind::PIECES; piece++) {
        load_matrices(b[piece], right + piece * RIGHT_ROWS * DP * 2 +
                                    chunk_offset<DP>(right_row + n * 8 + b_place.row, 2 * k + b_place.chunk));
      }
      if constexpr (Kind::PIECES == 2) {
        Kind::multiply(c[n], a[0], b[1][0], b[1][1]);
        Kind::multiply(c[n + 1], a[0], b[1][2], b[1][3]);
        Kind::multiply(c[n], a[1], b[0][0], b[0][1]);
        Kind::multiply(c[n + 1], a[1], b[0][2], b[0][3]);
      }
      Kind::multiply(c[n], a[0], b[0][0], b[0][1]);
      Kind::multiply(c[n + 1], a[0], b[0][2], b[0][3]);
    }
  }
}

/** Scores or weights of 16 × N·8 as left operands of the next product, with the sums over their columns to come. */
template <class Kind, int N>
struct LeftFragments {
  uint32_t of[Kind::PIECES][N / 2][4];

  __device__ __forceinline__ void set(const float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t pieces[Kind::PIECES];
        pack_pieces<Kind>(c[n][2 * half], c[n][2 * half + 1], pieces);
#pragma unroll
        for (int piece = 0; piece < Kind::PIECES; piece++) {
          of[piece][n / 2][(n & 1) * 2 + half] = pieces[piece];
        }
      }
    }
  }
};

/**
 * c[·] = scale·c[·] + left·right, with N·8 rows of `right` from `right_row` on and all of its DP columns. `scale`: of
 * the accumulator's two rows, where RESCALE. With split operands each call sums from zero and is then added: tensor
 * cores cut sums off instead of rounding them, which over thousands of keys is a bias.
 */
template <class Kind, int DP, int RIGHT_ROWS, int N, bool RESCALE>
__device__ __forceinline__ void multiply_columns(float (&c)[DP / 8][4], const LeftFragments<Kind, N>& left,
                                                 uint32_t right, int right_row, float scale_0, float scale_1) {
  const ChunkPlace place = right_transposed_place(threadIdx.x & 31);
#pragma unroll
  for (int n = 0; n < DP / 8; n += 2) {
    if constexpr (Kind::PIECES == 2) {
      float sums[2][4] = {};
#pragma unroll
      for (int k = 0; k < N / 2; k++) {
        uint32_t b[2][4];
#pragma unroll
        for (int piece = 0; piece < 2; piece++) {
          load_matrices_transposed(b[piece], right + piece * RIGHT_ROWS * DP * 2 +
                                                 chunk_offset<DP>(right_row + k * 16 + place.row, n + place.chunk));
        }
        Kind::multiply(sums[0], left.of[0][k], b[1][0], b[1][1]);
        Kind::multiply(sums[1], left.of[0][k], b[1][2], b[1][3]);
        Kind::multiply(sums[0], left.of[1][k], b[0][0], b[0][1]);
        Kind::multiply(sums[1], left.of[1][k], b[0][2], b[0][3]);
        Kind::multiply(sums[0], left.of[0][k], b[0][0], b[0][1]);
        Kind::multiply(sums[1], left.of[0][k], b[0][2], b[0][3]);
      }
#pragma unroll
      for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float before = RESCALE ? c[n + m][i] * (i < 2 ? scale_0 : scale_1) : c[n + m][i];
          c[n + m][i] = before + sums[m][i];
        }
      }
    } else {
      if constexpr (RESCALE) {
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            c[n + m][i] *= i < 2 ? scale_0 : scale_1;
          }
        }
      }
#pragma unroll
      for (int k = 0; k < N / 2; k++) {
        uint32_t b[4];
        load_matrices_transposed(b, right + chunk_offset<DP>(right_row + k * 16 + place.row, n + place.chunk));
        Kind::multiply(c[n], left.of[0][k], b[0], b[1]);
        Kind::multiply(c[n + 1], left.of[0][k], b[2], b[3]);
      }
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
