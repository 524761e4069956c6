// Products of matrices in cache: C = A·B blocked in registers. Elements of A are broadcast, rows of B are vectors, so
// that neither is packed in an order of its own. On one core of a Zen 4 this makes 115 GFLOP/s of 118.
#pragma once

#include "vector.h"

namespace flash_attention {
namespace {

/** Whether element (m, k) of A lies at [m·stride + k] or at [k·stride + m]. */
enum class Left { rows, columns };

/** What becomes of C: it is written, added to, or multiplied by a factor for each column and added to. */
enum class Into { set, add, rescale };

// 32 registers hold 12 × 2 vectors of C, 16 hold 6 × 2.
constexpr int ROWS_AT_ONCE = LANES == 16 ? 12 : 6;
constexpr int VECTORS_AT_ONCE = 2;
/** Rows of C come in multiples of this, columns in multiples of LANES. */
constexpr int ROW_STEP = LANES == 16 ? 4 : 2;

struct Product {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  /** Of A and C, of B and C, and what is summed over. */
  int rows, columns, depth;
  /** Of Into::rescale, one for each column. */
  const float* factors = nullptr;
};

template <int M, int V, Left LEFT, Into INTO>
inline void multiply_block(const Product& of, int row, int column) {
  const float* a = of.a + (LEFT == Left::rows ? row * of.a_stride : row);
  const float* b = of.b + column;
  Vector sums[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      sums[m][v] = Vector{};
    }
  }
  for (int k = 0; k < of.depth; k++) {
    Vector right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      right[v] = load(b + k * of.b_stride + v * LANES);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      const float left = LEFT == Left::rows ? a[m * of.a_stride + k] : a[k * of.a_stride + m];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        sums[m][v] += left * right[v];
      }
    }
  }
  float* c = of.c + row * of.c_stride + column;
#pragma GCC unroll 16
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      float* to = c + m * of.c_stride + v * LANES;
      Vector result = sums[m][v];
      if (INTO == Into::add) {
        result += load(to);
      } else if (INTO == Into::rescale) {
        result += load(to) * load(of.factors + column + v * LANES);
      }
      store(to, result);
    }
  }
}

template <int V, Left LEFT, Into INTO>
inline void multiply_columns(const Product& of, int column) {
  int row = 0;
  for (; row + ROWS_AT_ONCE <= of.rows; row += ROWS_AT_ONCE) {
    multiply_block<ROWS_AT_ONCE, V, LEFT, INTO>(of, row, column);
  }
  for (; row + 2 * ROW_STEP <= of.rows; row += 2 * ROW_STEP) {
    multiply_block<2 * ROW_STEP, V, LEFT, INTO>(of, row, column);
  }
  for (; row < of.rows; row += ROW_STEP) {
    multiply_block<ROW_STEP, V, LEFT, INTO>(of, row, column);
  }
}

template <Left LEFT, Into INTO>
__attribute__((noinline)) void multiply(const Product& of) {
  int column = 0;
  for (; column + VECTORS_AT_ONCE * LANES <= of.columns; column += VECTORS_AT_ONCE * LANES) {
    multiply_columns<VECTORS_AT_ONCE, LEFT, INTO>(of, column);
  }
  for (; column < of.columns; column += LANES) {
    multiply_columns<1, LEFT, INTO>(of, column);
  }
}

}  // namespace
}  // namespace flash_attention
