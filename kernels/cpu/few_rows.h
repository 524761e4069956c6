// The forward pass for so few rows that it is as fast as memory: keys and values are read once, in the order in which
// they lie, by dot products along the head, and all rows of a unit (the query heads of a key head) use them. Where the
// heads of a key lie side by side a task takes all of them: reading one head at a time, 4 kB apart, made a fifth of the
// speed of memory.
#pragma once

#include "forward.h"

namespace flash_attention {
namespace {

/** Keys of a tile: of all heads together they should stay in the second-level cache until their values are read. */
constexpr int FEW_TILE_KEYS = 32;

typedef float Four __attribute__((vector_size(16)));

/** Elements 0, 0', 1, 1' of every 16 bytes of two vectors, and elements 2, 2', 3, 3'. */
inline Vector interleave_low(Vector a, Vector b) {
#if FLASH_VECTOR_BYTES == 64
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
#elif FLASH_VECTOR_BYTES == 32
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

inline Vector interleave_high(Vector a, Vector b) {
#if FLASH_VECTOR_BYTES == 64
  return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
#elif FLASH_VECTOR_BYTES == 32
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

/** Elements 0, 1, 0', 1' and 2, 3, 2', 3' likewise. */
inline Vector join_low(Vector a, Vector b) {
#if FLASH_VECTOR_BYTES == 64
  return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
#elif FLASH_VECTOR_BYTES == 32
  return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
#else
  return __builtin_shufflevector(a, b, 0, 1, 4, 5);
#endif
}

inline Vector join_high(Vector a, Vector b) {
#if FLASH_VECTOR_BYTES == 64
  return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
#elif FLASH_VECTOR_BYTES == 32
  return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
#else
  return __builtin_shufflevector(a, b, 2, 3, 6, 7);
#endif
}

/** The four sums of four vectors: first in each 16 bytes of all four at once, then across. */
inline Four sum_each(const Vector x[4]) {
  const Vector first = interleave_low(x[0], x[1]) + interleave_high(x[0], x[1]);
  const Vector second = interleave_low(x[2], x[3]) + interleave_high(x[2], x[3]);
  const Vector partial = join_low(first, second) + join_high(first, second);
  Four parts[LANES / 4];
  __builtin_memcpy(parts, &partial, sizeof(Vector));
  Four total = parts[0];
#pragma GCC unroll 4
  for (int part = 1; part < LANES / 4; part++) {
    total += parts[part];
  }
  return total;
}

/** q·k of ROWS queries and four keys: [key][row] into `scores`, keys `stride` apart. `size` is a multiple of LANES. */
template <int ROWS>
inline void dot_products(const float* queries, const float* const keys[], int64_t size, float* scores, int stride) {
  Vector sums[4 * ROWS];
#pragma GCC unroll 16
  for (int n = 0; n < 4 * ROWS; n++) {
    sums[n] = Vector{};
  }
  for (int64_t d = 0; d < size; d += LANES) {
    Vector query[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
      query[row] = load(queries + row * size + d);
    }
#pragma GCC unroll 4
    for (int key = 0; key < 4; key++) {
      const Vector part = load(keys[key] + d);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) {
        sums[key * ROWS + row] += part * query[row];
      }
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < ROWS; n++) {
    const Four result = sum_each(sums + 4 * n);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      scores[(4 * n + i) / ROWS * stride + (4 * n + i) % ROWS] = result[i];
    }
  }
}

/** O += P·V of four keys, whose weights are `stride` apart, for ROWS rows. `size` is a multiple of LANES. */
template <int ROWS>
inline void add_values(const float* weights, int stride, const float* const values[], int64_t size, float* output) {
  for (int64_t d = 0; d < size; d += LANES) {
    Vector sums[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
      sums[row] = load(output + row * size + d);
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
      const Vector part = load(values[u] + d);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) {
        sums[row] += weights[u * stride + row] * part;
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
      store(output + row * size + d, sums[row]);
    }
  }
}

constexpr int FEW_LANES = static_cast<int>(FEW_ROWS > LANES ? FEW_ROWS : LANES);

/** The rows of one unit. */
struct FewRows {
  Lanes lanes;
  RunningSoftmax softmax;
  int64_t key_head;
  /** [rows][D padded], [rows][Dv padded], [keys of a tile][lanes]; rows in steps of 4. */
  float* queries;
  float* output;
  float* scores;
  /** Whether the tile at hand has pairs that this unit sees. */
  bool sees;
};

struct FewRowsMemory {
  FewRows* units;
  float* bias;
  /** [keys of a tile][D padded], [Dv padded]: copies for where rows cannot be used as they lie. */
  float* keys;
  float* values;
};

inline FewRowsMemory take_few_rows(Scratch& scratch, const ForwardCall& call) {
  const PaddedSizes sizes = padded_sizes(call.problem);
  FewRowsMemory memory;
  memory.units = scratch.take<FewRows>(call.schedule.units_at_once);
  for (int64_t n = 0; n < call.schedule.units_at_once; n++) {
    FewRows unit{};
    unit.lanes = take_lanes(scratch, FEW_LANES);
    unit.softmax = take_softmax(scratch, FEW_LANES);
    unit.queries = scratch.take<float>(FEW_ROWS * sizes.head);
    unit.output = scratch.take<float>(FEW_ROWS * sizes.value);
    unit.scores = scratch.take<float>(FEW_TILE_KEYS * FEW_LANES);
    if (memory.units) {
      memory.units[n] = unit;
    }
  }
  memory.bias = call.tensors.mask || call.tensors.bias ? scratch.take<float>(FEW_TILE_KEYS * FEW_LANES) : nullptr;
  memory.keys = scratch.take<float>(FEW_TILE_KEYS * sizes.head);
  memory.values = scratch.take<float>(FEW_TILE_KEYS * sizes.value);
  return memory;
}

inline void begin_few_rows(const ForwardCall& call, const BlockPlace& place, int64_t part, FewRows& unit) {
  const Problem& problem = call.problem;
  const PaddedSizes sizes = padded_sizes(problem);
  const Rows& rows = call.schedule.rows;
  const Sequence& sequence = call.sequences[place.batch];
  unit.lanes.count = static_cast<int>(rounded_up(rows.unit_rows, LANES));
  fill_lanes(unit.lanes, problem, call.tensors, sequence, rows, place, 0);
  unit.key_head = key_head_of(problem, rows, place.unit);
  zero_row(unit.queries, FEW_ROWS * sizes.head);
  for (int lane = 0; lane < unit.lanes.rows; lane++) {
    if (unit.lanes.query[lane] < sequence.query_rows) {
      const int64_t at =
          query_row(problem.q, sequence, place.batch, unit.lanes.query[lane], unit.lanes.head[lane]);
      copy_row(call.tensors.q + at, problem.head_size, unit.queries + lane * sizes.head, sizes.head);
    }
  }
  zero_row(unit.output, FEW_ROWS * sizes.value);
  zero_row(unit.scores, FEW_TILE_KEYS * FEW_LANES);  // lanes that are no rows
  begin_softmax(unit.softmax, unit.lanes, part == 0 ? call.tensors.sinks : nullptr);
}

/**
 * Four keys of a tile that are worked on together: `first`, and `step`, 2·step and 3·step keys later. A quarter of the
 * tile apart, each of them goes through a quarter of the memory from its beginning to its end, which the prefetcher of
 * a CPU follows; four neighbours go to and fro.
 */
struct FourKeys {
  int first, step;

  int operator[](int u) const { return first + u * step; }
};

/** Scores of four keys. */
inline void few_rows_scores(const FewRows& unit, const float* const keys[], int64_t size, FourKeys four) {
  const int stride = unit.lanes.count * four.step, rows = unit.lanes.rows;
  float* scores = unit.scores + four.first * unit.lanes.count;
  if (rows == 1) {
    dot_products<1>(unit.queries, keys, size, scores, stride);
  } else if (rows == 2) {
    dot_products<2>(unit.queries, keys, size, scores, stride);
  } else if (LANES == 16) {
    for (int row = 0; row < rows; row += 4) {
      dot_products<4>(unit.queries + row * size, keys, size, scores + row, stride);
    }
  } else {  // 16 registers do not hold the sums of four rows
    for (int row = 0; row < rows; row += 2) {
      dot_products<2>(unit.queries + row * size, keys, size, scores + row, stride);
    }
  }
}

inline void few_rows_values(const FewRows& unit, const float* const values[], int64_t size, FourKeys four) {
  const int stride = unit.lanes.count * four.step, rows = unit.lanes.rows;
  const float* weights = unit.scores + four.first * unit.lanes.count;
  if (rows == 1) {
    add_values<1>(weights, stride, values, size, unit.output);
  } else if (rows == 2) {
    add_values<2>(weights, stride, values, size, unit.output);
  } else {
    for (int row = 0; row < rows; row += 4) {
      add_values<4>(weights + row, stride, values, size, unit.output + row * size);
    }
  }
}

/** Rows of a tile of k or v as they lie, of key head 0; past the last key the last again. */
struct TileRows {
  const float* row[FEW_TILE_KEYS];
  int64_t head_stride;
  int64_t size;

  TileRows(const ForwardCall& call, const Strides& strides, const float* data, const Sequence& sequence, int64_t key,
           int64_t count, int64_t row_size)
      : head_stride(strides.head), size(row_size) {
    for (int n = 0; n < FEW_TILE_KEYS && count > 0; n++) {
      row[n] = key_row(call.problem, call.tensors, strides, data, sequence, key + smaller_of(n, count - 1), 0);
    }
  }

  /** Four rows of a head. */
  void get(FourKeys four, int64_t head, const float* rows[4]) const {
    for (int u = 0; u < 4; u++) {
      rows[u] = row[four[u]] + head * head_stride;
    }
  }

  /** Asks for four rows of a head, so that memory is at work while scores are. */
  void ask_for(FourKeys four, int64_t head) const {
    for (int u = 0; u < 4; u++) {
      const float* from = row[four[u]] + head * head_stride;
      for (int64_t d = 0; d < size; d += 16) {
        __builtin_prefetch(from + d, 0, 2);
      }
    }
  }
};

/** Weights of one unit's tile; its output is brought to the new largest score. */
inline void few_rows_weights(const ForwardCall& call, const ScoreTile& tile, FewRows& unit, float* bias,
                             const Dropout& dropout, int64_t batch) {
  float scale;
  unit.sees = complete_scores(tile, unit.lanes, call.problem, call.tensors, bias, nullptr, &scale);
  if (!unit.sees) {
    return;
  }
  weigh_scores(tile, unit.lanes, scale, dropout, batch, unit.softmax);
  const int64_t size = padded_sizes(call.problem).value;
  for (int lane = 0; lane < unit.lanes.rows; lane++) {
    const float rescale = unit.softmax.rescale[lane];
    for (int64_t d = 0; rescale != 1 && d < size; d += LANES) {
      store(unit.output + lane * size + d, load(unit.output + lane * size + d) * rescale);
    }
  }
}

/** All units of a task against one tile of `count` keys, with `left` of the task's keys from it on. */
inline void few_rows_tile(const ForwardCall& call, const FewRowsMemory& memory, int64_t batch, int64_t key,
                          int64_t count, int64_t left, const Dropout& dropout) {
  const Problem& problem = call.problem;
  const Tensors& tensors = call.tensors;
  const Sequence& sequence = call.sequences[batch];
  const PaddedSizes sizes = padded_sizes(problem);
  const int64_t units = call.schedule.units_at_once;
  const Lanes& lanes = memory.units[0].lanes;  // all units see the same keys, as far as lengths and window tell
  const ScoreTile tile = visible_part(nullptr, lanes.count, key, count, lanes);
  if (tile.first == tile.last) {
    return;
  }
  const int64_t padded = rounded_up(count, 4);
  const int quarter = (tile.last - tile.first) / 4;
  const TileRows values(call, problem.v, tensors.v, sequence, key, count, problem.value_size);
  if (sizes.head == problem.head_size) {
    const TileRows keys(call, problem.k, tensors.k, sequence, key, count, problem.head_size);
    for (int n = 0; n < quarter; n++) {
      const FourKeys four = {tile.first + n, quarter};
      for (int64_t u = 0; u < units; u++) {
        const float* rows[4];
        values.ask_for(four, memory.units[u].key_head);
        keys.get(four, memory.units[u].key_head, rows);
        few_rows_scores(memory.units[u], rows, sizes.head, four);
      }
    }
  } else {
    for (int64_t u = 0; u < units; u++) {
      pack_keys(problem, tensors, problem.k, tensors.k, sequence, memory.units[u].key_head, key, count,
                problem.head_size, memory.keys, sizes.head, padded);
      for (int n = tile.first; n < tile.last; n += 4) {
        const float* row = memory.keys + n * sizes.head;
        const float* rows[4] = {row, row + sizes.head, row + 2 * sizes.head, row + 3 * sizes.head};
        few_rows_scores(memory.units[u], rows, sizes.head, {n, 1});
      }
    }
  }
  for (int64_t u = 0; u < units; u++) {
    ScoreTile own = tile;
    own.scores = memory.units[u].scores;
    few_rows_weights(call, own, memory.units[u], memory.bias, dropout, batch);
  }
  // A hidden pair weighs 0, and 0 times a value that is no number must not reach its row.
  const bool hides = tensors.mask || tensors.bias || is_partial(tile, lanes);
  if (sizes.value == problem.value_size && !hides) {
    const int64_t next = key + FEW_TILE_KEYS;
    const TileRows next_keys(call, problem.k, tensors.k, sequence, next, left - count, problem.head_size);
    for (int n = 0; n < quarter; n++) {
      const FourKeys four = {tile.first + n, quarter};
      for (int64_t u = 0; u < units; u++) {
        const float* rows[4];
        if (left > count) {
          next_keys.ask_for(four, memory.units[u].key_head);
        }
        values.get(four, memory.units[u].key_head, rows);
        few_rows_values(memory.units[u], rows, sizes.value, four);
      }
    }
    return;
  }
  for (int64_t u = 0; u < units; u++) {
    FewRows& unit = memory.units[u];
    if (!unit.sees) {
      continue;
    }
    const bool finite = pack_keys(problem, tensors, problem.v, tensors.v, sequence, unit.key_head, key, count,
                                  problem.value_size, memory.values, sizes.value, padded);
    if (!finite) {
      ScoreTile own = tile;
      own.scores = unit.scores;
      add_visible_values(own, unit.lanes, problem, tensors, memory.values, sizes.value, unit.output, sizes.value, 1);
      continue;
    }
    for (int n = tile.first; n < tile.last; n += 4) {
      const float* row = memory.values + n * sizes.value;
      const float* rows[4] = {row, row + sizes.value, row + 2 * sizes.value, row + 3 * sizes.value};
      few_rows_values(unit, rows, sizes.value, {n, 1});
    }
  }
}

/** A task: one part of the keys against `units_at_once` units from `first_unit` on. */
inline void few_rows_task(const ForwardCall& call, int64_t batch, int64_t first_unit, int64_t part,
                          void* memory_of_task) {
  const Sequence& sequence = call.sequences[batch];
  Scratch scratch(memory_of_task);
  const FewRowsMemory memory = take_few_rows(scratch, call);
  const Dropout dropout(call.problem);
  const int64_t units = call.schedule.units_at_once;
  for (int64_t u = 0; u < units; u++) {
    begin_few_rows(call, {batch, first_unit + u, 0}, part, memory.units[u]);
  }
  const Lanes& lanes = memory.units[0].lanes;
  const int64_t part_begin = part * call.schedule.part_keys;
  const int64_t begin = larger_of(lanes.any_begin / FEW_TILE_KEYS * FEW_TILE_KEYS, part_begin);
  const int64_t end = smaller_of(lanes.any_end, part_begin + call.schedule.part_keys);
  for (int64_t key = begin; key < end; key += FEW_TILE_KEYS) {
    few_rows_tile(call, memory, batch, key, smaller_of(FEW_TILE_KEYS, end - key), end - key, dropout);
  }
  const int64_t value_size = padded_sizes(call.problem).value;
  for (int64_t u = 0; u < units; u++) {
    const FewRows& unit = memory.units[u];
    for (int lane = 0; lane < unit.lanes.rows; lane++) {
      store_row(call, sequence, {batch, first_unit + u, 0}, lane, part, unit.lanes.head[lane],
                unit.lanes.query[lane], unit.softmax, lane, unit.output + lane * value_size, 1);
    }
  }
}

}  // namespace
}  // namespace flash_attention
