// Rows of tensors brought into cache in the order in which products read them.
#pragma once

#include "lanes.h"

namespace flash_attention {
namespace {

/** Head and value size filled up to whole vectors. */
struct PaddedSizes {
  int64_t head, value;
};

inline PaddedSizes padded_sizes(const Problem& problem) {
  return {rounded_up(problem.head_size, LANES), rounded_up(problem.value_size, LANES)};
}

/**
 * Copies a row and fills it up with zeros. Gives a vector that is NaN somewhere if the row holds a NaN or an infinity,
 * else zero.
 */
inline Vector copy_row(const float* from, int64_t size, float* to, int64_t padded) {
  Vector odd{};
  int64_t d = 0;
  for (; d + LANES <= size; d += LANES) {
    const Vector part = load(from + d);
    odd += part * 0.f;
    store(to + d, part);
  }
  for (; d < size; d++) {
    odd[0] += from[d] * 0.f;
    to[d] = from[d];
  }
  for (; d < padded; d++) {
    to[d] = 0;
  }
  return odd;
}

inline void zero_row(float* to, int64_t count) {
  for (int64_t d = 0; d < count; d++) {
    to[d] = 0;
  }
}

/** Whether any element is NaN. */
inline bool has_nan(Vector x) {
  const Integers is_number = x == x;
  for (int i = 0; i < LANES; i++) {
    if (!is_number[i]) {
      return true;
    }
  }
  return false;
}

/** Keys or values of a tile as rows `padded` apart, with rows of zeros up to `rows`. True if all are finite. */
inline bool pack_keys(const Problem& problem, const Tensors& tensors, const Strides& strides, const float* data,
                      const Sequence& sequence, int64_t head, int64_t first, int64_t count, int64_t size, float* to,
                      int64_t padded, int64_t rows) {
  Vector odd{};
  for (int64_t n = 0; n < count; n++) {
    odd += copy_row(key_row(problem, tensors, strides, data, sequence, first + n, head), size, to + n * padded, padded);
  }
  zero_row(to + count * padded, (rows - count) * padded);
  return !has_nan(odd);
}

/** Rows of q or dO, one to a lane: element d of lane r at [d·count + r]. Those that do not exist are zero. */
inline void pack_lanes(const Strides& strides, const float* data, const Sequence& sequence, int64_t batch,
                       const Lanes& lanes, int64_t size, float* to) {
  for (int lane = 0; lane < lanes.count; lane++) {
    if (lane >= lanes.rows || lanes.query[lane] >= sequence.query_rows) {
      for (int64_t d = 0; d < size; d++) {
        to[d * lanes.count + lane] = 0;
      }
      continue;
    }
    const float* from = data + query_row(strides, sequence, batch, lanes.query[lane], lanes.head[lane]);
    for (int64_t d = 0; d < size; d++) {
      to[d * lanes.count + lane] = from[d];
    }
  }
}

/** The same as rows `padded` apart. True if all of them are finite. */
inline bool pack_rows(const Strides& strides, const float* data, const Sequence& sequence, int64_t batch,
                      const Lanes& lanes, int64_t size, float* to, int64_t padded) {
  Vector odd{};
  for (int lane = 0; lane < lanes.count; lane++) {
    float* row = to + lane * padded;
    if (lane >= lanes.rows || lanes.query[lane] >= sequence.query_rows) {
      zero_row(row, padded);
      continue;
    }
    const float* from = data + query_row(strides, sequence, batch, lanes.query[lane], lanes.head[lane]);
    odd += copy_row(from, size, row, padded);
  }
  return !has_nan(odd);
}

}  // namespace
}  // namespace flash_attention
