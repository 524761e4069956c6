// The forward pass for so few rows that it is as fast as memory: every key and value is read once, from where it lies,
// by dot products along the head, and all rows of a unit (the query heads of a key head) use it.
#pragma once

#include "forward.h"

namespace flash_attention {
namespace {

typedef float Four __attribute__((vector_size(16)));

/** Rows ahead of the one in use that the memory is asked for. */
constexpr int PREFETCH_KEYS = 8;

/** The four sums of four vectors. */
inline Four sum_each(const Vector x[4]) {
  Four total[4];
  for (int i = 0; i < 4; i++) {
    Four parts[LANES / 4];
    __builtin_memcpy(parts, &x[i], sizeof(Vector));
    total[i] = parts[0];
    for (int part = 1; part < LANES / 4; part++) {
      total[i] += parts[part];
    }
  }
  const Four low = __builtin_shufflevector(total[0], total[1], 0, 4, 1, 5) +
      __builtin_shufflevector(total[0], total[1], 2, 6, 3, 7);
  const Four high = __builtin_shufflevector(total[2], total[3], 0, 4, 1, 5) +
      __builtin_shufflevector(total[2], total[3], 2, 6, 3, 7);
  return __builtin_shufflevector(low, high, 0, 1, 4, 5) + __builtin_shufflevector(low, high, 2, 3, 6, 7);
}

inline void prefetch(const float* row, int64_t size) {
  for (int64_t d = 0; d < size; d += 16) {
    __builtin_prefetch(row + d);
  }
}

/** q·k of ROWS queries and 4 / ROWS keys: [key][row] into `scores`. `size` is a multiple of LANES. */
template <int ROWS>
inline void dot_products(const float* queries, const float* const keys[], int64_t size, float* scores, int stride) {
  constexpr int KEYS = 4 / ROWS;
  Vector sums[4] = {};
  for (int64_t d = 0; d < size; d += LANES) {
#pragma GCC unroll 4
    for (int key = 0; key < KEYS; key++) {
      const Vector part = load(keys[key] + d);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) {
        sums[key * ROWS + row] += part * load(queries + row * size + d);
      }
    }
  }
  const Four result = sum_each(sums);
  for (int key = 0; key < KEYS; key++) {
    for (int row = 0; row < ROWS; row++) {
      scores[key * stride + row] = result[key * ROWS + row];
    }
  }
}

/** O += P·V for ROWS rows and V vectors of a value's elements. */
template <int ROWS, int V>
inline void add_values(const ScoreTile& tile, int first_row, const float* const values[], int64_t d, float* output,
                       int64_t output_stride, const float* rescale) {
  Vector sums[ROWS][V];
#pragma GCC unroll 4
  for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      sums[row][v] = load(output + row * output_stride + d + v * LANES) * rescale[row];
    }
  }
  for (int n = tile.first; n < tile.last; n++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const Vector part = load(values[n] + d + v * LANES);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) {
        sums[row][v] += tile.scores[n * tile.stride + first_row + row] * part;
      }
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      store(output + row * output_stride + d + v * LANES, sums[row][v]);
    }
  }
}

template <int ROWS>
inline void add_all_values(const ScoreTile& tile, int first_row, const float* const values[], int64_t size,
                           float* output, const float* rescale) {
  constexpr int VECTORS = LANES == 16 ? 4 : 2;
  int64_t d = 0;
  for (; d + VECTORS * LANES <= size; d += VECTORS * LANES) {
    add_values<ROWS, VECTORS>(tile, first_row, values, d, output, size, rescale);
  }
  for (; d < size; d += LANES) {
    add_values<ROWS, 1>(tile, first_row, values, d, output, size, rescale);
  }
}

/** The rows of k or v of a tile: where they lie, or copied with zeros at their ends. */
struct TileRows {
  const float* row[TILE_KEYS];
};

struct FewRowsMemory {
  Lanes lanes;
  RunningSoftmax softmax;
  /** [rows][D padded], [rows][Dv padded]; rows in steps of 4. */
  float* queries;
  float* output;
  float* scores;
  float* bias;
  float* keys;
  float* values;
};

constexpr int FEW_LANES = static_cast<int>(FEW_ROWS > LANES ? FEW_ROWS : LANES);

inline FewRowsMemory take_few_rows(Scratch& scratch, const Problem& problem, const Tensors& tensors) {
  const int64_t size = rounded_up(problem.head_size, LANES), value_size = rounded_up(problem.value_size, LANES);
  FewRowsMemory memory;
  memory.lanes = take_lanes(scratch, FEW_LANES);
  memory.softmax = take_softmax(scratch, FEW_LANES);
  memory.queries = scratch.take<float>(FEW_ROWS * size);
  memory.output = scratch.take<float>(FEW_ROWS * value_size);
  memory.scores = scratch.take<float>(TILE_KEYS * FEW_LANES);
  memory.bias = tensors.mask || tensors.bias ? scratch.take<float>(TILE_KEYS * FEW_LANES) : nullptr;
  memory.keys = scratch.take<float>(TILE_KEYS * size);
  memory.values = scratch.take<float>(TILE_KEYS * value_size);
  return memory;
}

inline void few_rows_scores(const ScoreTile& tile, int rows, const float* queries, int64_t size,
                            const TileRows& keys, const TileRows& values, int64_t value_size) {
  for (int n = tile.first; n < tile.last; n += 4) {
    for (int u = 0; u < 4; u++) {
      prefetch(keys.row[smaller_of(n + u + PREFETCH_KEYS, tile.last - 1)], size);
      prefetch(values.row[n + u], value_size);
    }
    float* scores = tile.scores + n * tile.stride;
    if (rows == 1) {
      dot_products<1>(queries, keys.row + n, size, scores, tile.stride);
    } else if (rows == 2) {
      dot_products<2>(queries, keys.row + n, size, scores, tile.stride);
      dot_products<2>(queries, keys.row + n + 2, size, scores + 2 * tile.stride, tile.stride);
    } else {
      for (int u = 0; u < 4; u++) {
        for (int row = 0; row < rows; row += 4) {
          dot_products<4>(queries + row * size, keys.row + n + u, size, scores + u * tile.stride + row, tile.stride);
        }
      }
    }
  }
}

inline void few_rows_values(const ScoreTile& tile, int rows, const TileRows& values, int64_t size, float* output,
                            const float* rescale) {
  if (rows == 1) {
    add_all_values<1>(tile, 0, values.row, size, output, rescale);
  } else if (rows == 2) {
    add_all_values<2>(tile, 0, values.row, size, output, rescale);
  } else {
    for (int row = 0; row < rows; row += 4) {
      add_all_values<4>(tile, row, values.row, size, output + row * size, rescale + row);
    }
  }
}

inline void few_rows_block(const ForwardCall& call, const BlockPlace& place, int64_t part, void* memory_of_task) {
  const Problem& problem = call.problem;
  const Tensors& tensors = call.tensors;
  const Rows& rows = call.schedule.rows;
  const Sequence& sequence = call.sequences[place.batch];
  Scratch scratch(memory_of_task);
  FewRowsMemory memory = take_few_rows(scratch, problem, tensors);
  const Dropout dropout(problem);
  const int64_t size = rounded_up(problem.head_size, LANES), value_size = rounded_up(problem.value_size, LANES);
  Lanes& lanes = memory.lanes;
  lanes.count = static_cast<int>(rounded_up(rows.unit_rows, LANES));
  fill_lanes(lanes, problem, tensors, sequence, rows, place, 0);
  zero_row(memory.queries, FEW_ROWS * size);
  for (int lane = 0; lane < lanes.rows; lane++) {
    if (lanes.query[lane] < sequence.query_rows) {
      copy_row(tensors.q + query_row(problem.q, sequence, place.batch, lanes.query[lane], lanes.head[lane]),
               problem.head_size, memory.queries + lane * size, size);
    }
  }
  zero_row(memory.output, FEW_ROWS * value_size);
  zero_row(memory.scores, TILE_KEYS * FEW_LANES);  // lanes that are no rows
  begin_softmax(memory.softmax, lanes, part == 0 ? tensors.sinks : nullptr);
  const int64_t key_head = rows.heads_together ? place.unit : place.unit / (problem.query_heads / problem.key_heads);
  const int64_t part_begin = part * call.schedule.part_keys;
  const int64_t begin = larger_of(lanes.any_begin / TILE_KEYS * TILE_KEYS, part_begin);
  const int64_t end = smaller_of(lanes.any_end, part_begin + call.schedule.part_keys);
  for (int64_t key = begin; key < end; key += TILE_KEYS) {
    const int64_t count = smaller_of(TILE_KEYS, end - key);
    const ScoreTile tile = visible_part(memory.scores, lanes.count, key, count, lanes);
    if (tile.first == tile.last) {
      continue;
    }
    TileRows keys, values;
    bool finite = true;
    const bool hides = tensors.mask || tensors.bias || is_partial(tile, lanes);
    if (hides || size != problem.head_size || value_size != problem.value_size) {
      const int64_t padded = rounded_up(count, 4);
      pack_keys(problem, tensors, problem.k, tensors.k, sequence, key_head, key, count, problem.head_size, memory.keys,
                size, padded);
      finite = pack_keys(problem, tensors, problem.v, tensors.v, sequence, key_head, key, count, problem.value_size,
                         memory.values, value_size, padded);
      for (int n = 0; n < padded; n++) {
        keys.row[n] = memory.keys + n * size;
        values.row[n] = memory.values + n * value_size;
      }
    } else {
      for (int n = tile.first; n < tile.last; n++) {
        keys.row[n] = key_row(problem, tensors, problem.k, tensors.k, sequence, key + n, key_head);
        values.row[n] = key_row(problem, tensors, problem.v, tensors.v, sequence, key + n, key_head);
      }
    }
    few_rows_scores(tile, lanes.rows, memory.queries, size, keys, values, value_size);
    float scale;
    if (!complete_scores(tile, lanes, problem, tensors, memory.bias, nullptr, &scale)) {
      continue;
    }
    weigh_scores(tile, lanes, scale, dropout, place.batch, memory.softmax);
    if (finite) {
      few_rows_values(tile, lanes.rows, values, value_size, memory.output, memory.softmax.rescale);
      continue;
    }
    for (int lane = 0; lane < lanes.rows; lane++) {
      for (int64_t d = 0; d < problem.value_size; d++) {
        memory.output[lane * value_size + d] *= memory.softmax.rescale[lane];
      }
    }
    add_visible_values(tile, lanes, problem, tensors, memory.values, value_size, memory.output, value_size, 1);
  }
  for (int lane = 0; lane < lanes.rows; lane++) {
    store_row(call, sequence, place, lane, part, lanes.head[lane], lanes.query[lane], memory.softmax, lane,
              memory.output + lane * value_size, 1);
  }
}

}  // namespace
}  // namespace flash_attention
