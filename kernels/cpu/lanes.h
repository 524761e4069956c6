// A group of query rows, one to each lane of a few vectors: what belongs to a row is a vector here, and nothing is ever
// summed across a vector.
#pragma once

#include "schedule.h"
#include "vector.h"

namespace flash_attention {
namespace {

/** Hands out parts of a task's scratch memory, aligned to 64 bytes; with no memory it only counts. */
class Scratch {
 public:
  explicit Scratch(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <typename T>
  T* take(int64_t count) {
    T* part = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += rounded_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return part;
  }

  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

/** Rows of queries in lanes. Arrays hold one element for each of `count` lanes, a multiple of LANES. */
struct Lanes {
  int count;
  /** Lanes that are rows; the rest repeat the last of them and are written nowhere. */
  int rows;
  int32_t* head;
  int32_t* query;
  /** Keys that a row sees, as far as lengths and window tell. */
  int32_t* begin;
  int32_t* end;
  /** query + offset of the diagonal, and the slope, for ALiBi. */
  float* position;
  float* slope;
  /** Index of (batch, head, query, key 0) in mask and bias. */
  int64_t* mask_at;
  int64_t* bias_at;
  /** The keys that any and that all rows see. */
  int64_t any_begin, any_end, all_begin, all_end;
};

inline Lanes take_lanes(Scratch& scratch, int count) {
  Lanes lanes{};
  lanes.count = count;
  lanes.head = scratch.take<int32_t>(count);
  lanes.query = scratch.take<int32_t>(count);
  lanes.begin = scratch.take<int32_t>(count);
  lanes.end = scratch.take<int32_t>(count);
  lanes.position = scratch.take<float>(count);
  lanes.slope = scratch.take<float>(count);
  lanes.mask_at = scratch.take<int64_t>(count);
  lanes.bias_at = scratch.take<int64_t>(count);
  return lanes;
}

/** The row of a unit as a head and a query. */
inline void locate_row(const Problem& problem, const Rows& rows, int64_t unit, int64_t row, int32_t* head,
                       int32_t* query) {
  const int64_t group = problem.query_heads / problem.key_heads;
  *head = static_cast<int32_t>(rows.heads_together ? unit * group + row / problem.query_length : unit);
  *query = static_cast<int32_t>(rows.heads_together ? row % problem.query_length : row);
}

/** The key head that a unit's rows read. */
inline int64_t key_head_of(const Problem& problem, const Rows& rows, int64_t unit) {
  return rows.heads_together ? unit : unit / (problem.query_heads / problem.key_heads);
}

/** Puts the rows from `first` on into lanes: as many as there are, at least one. */
inline void fill_lanes(Lanes& lanes, const Problem& problem, const Tensors& tensors, const Sequence& sequence,
                       const Rows& rows, const BlockPlace& place, int64_t first) {
  lanes.rows = static_cast<int>(smaller_of(lanes.count, rows.unit_rows - first));
  const int64_t offset = diagonal_offset(problem, sequence);
  lanes.any_begin = lanes.all_end = INT64_MAX;
  lanes.any_end = lanes.all_begin = 0;
  for (int lane = 0; lane < lanes.count; lane++) {
    const int64_t row = first + smaller_of(lane, lanes.rows - 1);
    locate_row(problem, rows, place.unit, row, &lanes.head[lane], &lanes.query[lane]);
    const int64_t head = lanes.head[lane], query = lanes.query[lane];
    const int64_t end = key_end(problem, sequence, query);
    const int64_t begin = smaller_of(key_begin(problem, sequence, query), end);
    lanes.begin[lane] = static_cast<int32_t>(begin);
    lanes.end[lane] = static_cast<int32_t>(end);
    if (begin < end) {
      lanes.any_begin = smaller_of(lanes.any_begin, begin);
      lanes.any_end = larger_of(lanes.any_end, end);
    }
    lanes.all_begin = larger_of(lanes.all_begin, begin);
    lanes.all_end = smaller_of(lanes.all_end, end);
    lanes.position[lane] = static_cast<float>(query + offset);
    lanes.slope[lane] = tensors.alibi_slopes ? tensors.alibi_slopes[place.batch * problem.alibi_batch + head] : 0;
    lanes.mask_at[lane] = place.batch * problem.mask.batch + head * problem.mask.head + query * problem.mask.query;
    lanes.bias_at[lane] = place.batch * problem.bias.batch + head * problem.bias.head + query * problem.bias.query;
  }
  lanes.any_begin = smaller_of(lanes.any_begin, lanes.any_end);
}

/** Hides a row altogether. */
inline void hide_lane(Lanes& lanes, int lane) {
  lanes.begin[lane] = lanes.end[lane] = 0;
  lanes.all_end = 0;
}

inline bool is_visible(const Lanes& lanes, const Problem& problem, const Tensors& tensors, int lane, int64_t key) {
  return key >= lanes.begin[lane] && key < lanes.end[lane] &&
      (!tensors.mask || tensors.mask[lanes.mask_at[lane] + key * problem.mask.key]) &&
      (!tensors.bias || tensors.bias[lanes.bias_at[lane] + key * problem.bias.key] != -INFINITE);
}

}  // namespace
}  // namespace flash_attention
