// How a call is cut into tasks: pure functions of the problem, so that the number of threads changes no bit of a
// result.
#pragma once

#include "sequences.h"

namespace flash_attention {

/**
 * Rows of queries that work together. Where there are few queries, those of all query heads that share a key head are
 * rows of one unit, since they read the same keys; otherwise each query head is a unit.
 */
struct Rows {
  bool heads_together;
  /** Units of a batch, and rows of a unit. */
  int64_t units, unit_rows;
  /** Rows of a block, blocks of a unit. */
  int64_t block_rows, blocks;
};

/** A block's place. */
struct BlockPlace {
  int64_t batch, unit, block;
};

struct ForwardSchedule {
  /** So few rows that keys and values are read once, straight from memory (few_rows.h). */
  bool few_rows;
  /** Units that a task of the kernel for few rows takes together: all whose keys lie side by side. */
  int64_t units_at_once;
  Rows rows;
  /** The keys in parts, whose results are merged by their LSE. */
  int64_t parts, part_keys;
  int64_t tasks;
};

struct BackwardSchedule {
  Rows rows;
  /** The keys in chunks: each is a task that walks all rows. */
  int64_t chunks, chunk_keys;
  int64_t tasks;
};

namespace {

/** Enough tasks for the threads of any machine, and small beside what a task needs. */
constexpr int64_t ENOUGH_TASKS = 64;
constexpr int64_t FEW_ROWS = 8;
/** Keys of a tile. */
constexpr int TILE_KEYS = 96;
constexpr int64_t FORWARD_BLOCK_ROWS = 128;
constexpr int64_t BACKWARD_BLOCK_ROWS = 64;
/** Parts and chunks are not cut smaller than this. */
constexpr int64_t LEAST_PART_KEYS = 6 * TILE_KEYS;
constexpr int64_t LEAST_CHUNK_KEYS = 12 * TILE_KEYS;
/** Each chunk but the first costs as much memory as dQ. */
constexpr int64_t MOST_CHUNKS = 8;

inline Rows rows_of(const Problem& problem, int64_t block_rows) {
  Rows rows;
  const int64_t group = problem.query_heads / problem.key_heads;
  rows.heads_together = group > 1 && problem.query_length < block_rows;
  rows.units = rows.heads_together ? problem.key_heads : problem.query_heads;
  rows.unit_rows = problem.query_length * (rows.heads_together ? group : 1);
  rows.block_rows = block_rows;
  rows.blocks = (rows.unit_rows + block_rows - 1) / block_rows;
  return rows;
}

/** `cut` keys in equal parts, each a multiple of a tile. */
inline int64_t part_size(int64_t keys, int64_t parts) {
  return larger_of(1, rounded_up((keys + parts - 1) / parts, TILE_KEYS));
}

/** `may_be_few`: whether the kernel for few rows may serve. */
inline ForwardSchedule forward_schedule(const Problem& problem, bool may_be_few) {
  ForwardSchedule schedule;
  schedule.rows = rows_of(problem, FORWARD_BLOCK_ROWS);
  schedule.few_rows = may_be_few && schedule.rows.unit_rows <= FEW_ROWS;
  schedule.units_at_once = schedule.few_rows && problem.k.head < problem.k.row ? schedule.rows.units : 1;
  const int64_t blocks = problem.batch * schedule.rows.units * schedule.rows.blocks / schedule.units_at_once;
  const int64_t wanted = blocks == 0 ? 1 : ENOUGH_TASKS / blocks;
  schedule.parts = larger_of(1, smaller_of(wanted, problem.key_length / LEAST_PART_KEYS));
  schedule.part_keys = part_size(problem.key_length, schedule.parts);
  schedule.parts = larger_of(1, (problem.key_length + schedule.part_keys - 1) / schedule.part_keys);
  schedule.tasks = blocks * schedule.parts;
  return schedule;
}

inline BackwardSchedule backward_schedule(const Problem& problem) {
  BackwardSchedule schedule;
  schedule.rows = rows_of(problem, BACKWARD_BLOCK_ROWS);
  const int64_t heads = problem.batch * problem.key_heads;
  const int64_t wanted = heads == 0 ? 1 : smaller_of(MOST_CHUNKS, (ENOUGH_TASKS + heads - 1) / heads);
  schedule.chunks = larger_of(1, smaller_of(wanted, problem.key_length / LEAST_CHUNK_KEYS));
  schedule.chunk_keys = part_size(problem.key_length, schedule.chunks);
  schedule.chunks = larger_of(1, (problem.key_length + schedule.chunk_keys - 1) / schedule.chunk_keys);
  schedule.tasks = heads * schedule.chunks;
  return schedule;
}

/** The heavier blocks of a causal call first, so that the threads end together. */
inline BlockPlace block_place(const Rows& rows, int64_t index) {
  const int64_t block = rows.blocks - 1 - index % rows.blocks;
  return {index / rows.blocks / rows.units, index / rows.blocks % rows.units, block};
}

/** Where a part's results of a row are among the partials. */
inline int64_t partial_row(const Rows& rows, int64_t parts, int64_t batch, int64_t unit, int64_t row, int64_t part) {
  return ((batch * rows.units + unit) * rows.unit_rows + row) * parts + part;
}

}  // namespace
}  // namespace flash_attention
