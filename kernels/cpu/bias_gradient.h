// The gradient of a bias: dS, summed over what the bias is broadcast along. Batches and heads may share an element, so
// here a task owns elements of the bias and computes the scores of all that read them once more.
#pragma once

#include "backward.h"

namespace flash_attention {
namespace {

constexpr int64_t BIAS_CHUNK_KEYS = 5 * TILE_KEYS;

/** How the elements of the bias are spread over tasks. */
struct BiasSchedule {
  Rows rows;
  /** Blocks of queries and chunks of keys that have elements of their own: 1 along an axis of 1. */
  int64_t query_blocks, key_chunks;
  bool own_queries, own_keys;
};

inline BiasSchedule bias_schedule(const Problem& problem) {
  BiasSchedule schedule;
  schedule.rows = {false, problem.query_heads, problem.query_length, BACKWARD_BLOCK_ROWS,
                   (problem.query_length + BACKWARD_BLOCK_ROWS - 1) / BACKWARD_BLOCK_ROWS};
  schedule.own_queries = problem.bias.query != 0;
  schedule.own_keys = problem.bias.key != 0;
  schedule.query_blocks = schedule.own_queries ? schedule.rows.blocks : 1;
  schedule.key_chunks = schedule.own_keys ? (problem.key_length + BIAS_CHUNK_KEYS - 1) / BIAS_CHUNK_KEYS : 1;
  return schedule;
}

struct BiasMemory {
  GradientRows rows;
  GradientTile tile;
  /** [keys of a chunk, or 1][lanes]. */
  double* sums;
};

inline BiasMemory take_bias(Scratch& scratch, const BackwardCall& call) {
  BiasMemory memory;
  memory.rows = take_gradient_rows(scratch, call.problem);
  memory.tile = take_gradient_tile(scratch, call.problem, call.tensors);
  memory.sums = scratch.take<double>((call.problem.bias.key != 0 ? BIAS_CHUNK_KEYS : 1) * BACKWARD_LANES);
  return memory;
}

/** Adds dS of the visible pairs of keys [first, last) and a block's rows to `sums`. */
inline void add_bias_gradients(const BackwardCall& call, BiasMemory& memory, const BiasSchedule& schedule,
                               const BlockPlace& place, int64_t first, int64_t last, const Dropout& dropout) {
  const Problem& problem = call.problem;
  const Lanes& lanes = memory.rows.lanes;
  const int64_t key_head = key_head_of(problem, schedule.rows, place.unit);
  const int64_t begin = larger_of(lanes.any_begin / TILE_KEYS * TILE_KEYS, first);
  const int64_t end = smaller_of(lanes.any_end, last);
  for (int64_t key = begin; key < end; key += TILE_KEYS) {
    const int64_t count = smaller_of(TILE_KEYS, end - key);
    load_gradient_tile(memory.tile, call, call.sequences[place.batch], key_head, key, count);
    ScoreTile scores;
    if (!differentiate(call, memory.tile, memory.rows, place.batch, key, count, dropout, false, &scores)) {
      continue;
    }
    const bool finite = memory.rows.finite && memory.tile.finite;
    for (int n = scores.first; n < scores.last; n++) {
      double* sums = memory.sums + (schedule.own_keys ? key + n - first : 0) * BACKWARD_LANES;
      for (int lane = 0; lane < lanes.rows; lane++) {
        if (finite || is_visible(lanes, problem, call.tensors, lane, key + n)) {
          sums[lane] += memory.tile.d_scores[n * scores.stride + lane];
        }
      }
    }
  }
}

inline void bias_task(const BackwardCall& call, int64_t task, void* memory_of_task) {
  const Problem& problem = call.problem;
  const BiasSchedule schedule = bias_schedule(problem);
  // place.block and the call's schedule are of single heads here, whatever those of dQ, dK and dV are.
  BackwardCall own = call;
  own.schedule.rows = schedule.rows;
  Scratch scratch(memory_of_task);
  BiasMemory memory = take_bias(scratch, own);
  const Dropout dropout(problem);
  const int64_t chunk = task % schedule.key_chunks;
  const int64_t block = task / schedule.key_chunks % schedule.query_blocks;
  const int64_t slot = task / schedule.key_chunks / schedule.query_blocks;
  const int64_t slot_head = slot % problem.bias_shape[1], slot_batch = slot / problem.bias_shape[1];
  const int64_t first = chunk * BIAS_CHUNK_KEYS;
  const int64_t last = schedule.own_keys ? smaller_of(first + BIAS_CHUNK_KEYS, problem.key_length) : problem.key_length;
  const int64_t sums = (schedule.own_keys ? last - first : 1) * BACKWARD_LANES;
  for (int64_t i = 0; i < sums; i++) {
    memory.sums[i] = 0;
  }
  const bool all_batches = problem.bias_shape[0] == 1, all_heads = problem.bias_shape[1] == 1;
  for (int64_t batch = all_batches ? 0 : slot_batch; batch < (all_batches ? problem.batch : slot_batch + 1); batch++) {
    for (int64_t head = all_heads ? 0 : slot_head; head < (all_heads ? problem.query_heads : slot_head + 1); head++) {
      const int64_t first_block = schedule.own_queries ? block : 0;
      const int64_t last_block = schedule.own_queries ? block + 1 : schedule.rows.blocks;
      for (int64_t at = first_block; at < last_block; at++) {
        const BlockPlace place = {batch, head, at};
        load_gradient_rows(memory.rows, own, place);
        add_bias_gradients(own, memory, schedule, place, first, last, dropout);
      }
    }
  }
  const int64_t queries =
      schedule.own_queries ? smaller_of(BACKWARD_LANES, problem.query_length - block * BACKWARD_LANES) : 1;
  for (int64_t key = 0; key < (schedule.own_keys ? last - first : 1); key++) {
    for (int64_t query = 0; query < queries; query++) {
      double total = memory.sums[key * BACKWARD_LANES + query];
      for (int lane = 1; !schedule.own_queries && lane < BACKWARD_LANES; lane++) {
        total += memory.sums[key * BACKWARD_LANES + lane];
      }
      call.gradients.d_bias[slot_batch * problem.bias.batch + slot_head * problem.bias.head +
                            (block * BACKWARD_LANES + query) * problem.bias.query +
                            (first + key) * problem.bias.key] = static_cast<float>(total);
    }
  }
}

}  // namespace
}  // namespace flash_attention
