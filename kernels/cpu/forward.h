// The forward pass of FlashAttention-2 (Dao, 2023, algorithm 1): a block of queries walks the tiles of keys. Queries
// are lanes, so scores and outputs are kept transposed: Sᵀ = K·Qᵀ and Oᵀ = Vᵀ·Pᵀ.
#pragma once

#include "gemm.h"
#include "isa.h"
#include "softmax.h"
#include "tiles.h"

namespace flash_attention {
namespace {

constexpr int GROUP_LANES = VECTORS_AT_ONCE * LANES;
constexpr int GROUPS = static_cast<int>(FORWARD_BLOCK_ROWS / GROUP_LANES);

/** A group of rows with all that it carries from tile to tile. */
struct QueryGroup {
  Lanes lanes;
  RunningSoftmax softmax;
  /** [D][lanes], [Dv padded][lanes]. */
  float* queries;
  float* output;
};

struct ForwardMemory {
  QueryGroup groups[GROUPS];
  float* keys;
  float* values;
  float* scores;
  float* bias;
};

inline int64_t padded_rows(int64_t size) { return rounded_up(size, ROW_STEP); }

inline ForwardMemory take_forward(Scratch& scratch, const Problem& problem, const Tensors& tensors) {
  ForwardMemory memory;
  for (QueryGroup& group : memory.groups) {
    group.lanes = take_lanes(scratch, GROUP_LANES);
    group.softmax = take_softmax(scratch, GROUP_LANES);
    group.queries = scratch.take<float>(problem.head_size * GROUP_LANES);
    group.output = scratch.take<float>(padded_rows(problem.value_size) * GROUP_LANES);
  }
  memory.keys = scratch.take<float>(TILE_KEYS * problem.head_size);
  memory.values = scratch.take<float>(TILE_KEYS * padded_rows(problem.value_size));
  memory.scores = scratch.take<float>(TILE_KEYS * GROUP_LANES);
  memory.bias = tensors.mask || tensors.bias ? scratch.take<float>(TILE_KEYS * GROUP_LANES) : nullptr;
  return memory;
}

/** Scores of a tile up to its scale, or all of them where there is more to them; false if no pair is visible. */
inline bool complete_scores(const ScoreTile& tile, const Lanes& lanes, const Problem& problem, const Tensors& tensors,
                            float* bias, float* slopes, float* scale) {
  *scale = static_cast<float>(problem.softmax_scale);
  if (!has_finish(problem, tensors)) {
    return true;
  }
  if (bias && !gather_bias(tile, lanes, problem, tensors, bias)) {
    return false;
  }
  finish_scores(tile, lanes, problem, tensors, bias, slopes);
  *scale = 1;
  return true;
}

/** Oᵀ += Vᵀ·Pᵀ pair by pair, of the visible ones only: for tiles whose values hold a NaN or an infinity. */
inline void add_visible_values(const ScoreTile& tile, const Lanes& lanes, const Problem& problem,
                               const Tensors& tensors, const float* values, int64_t stride, float* output,
                               int64_t lane_step, int64_t size_step) {
  for (int lane = 0; lane < lanes.rows; lane++) {
    for (int n = tile.first; n < tile.last; n++) {
      if (!is_visible(lanes, problem, tensors, lane, tile.key + n)) {
        continue;
      }
      const float weight = tile.scores[n * tile.stride + lane];
      for (int64_t d = 0; d < problem.value_size; d++) {
        output[lane * lane_step + d * size_step] += weight * values[n * stride + d];
      }
    }
  }
}

/** Writes what a row has come to: its output and LSE, or with several parts what they are merged from. */
inline void store_row(const ForwardCall& call, const Sequence& sequence, const BlockPlace& place, int64_t row,
                      int64_t part, int32_t head, int32_t query, const RunningSoftmax& state, int lane,
                      const float* output, int64_t step) {
  const Problem& problem = call.problem;
  if (query >= sequence.query_rows) {
    return;
  }
  if (call.schedule.parts > 1) {
    const int64_t at = partial_row(call.schedule.rows, call.schedule.parts, place.batch, place.unit, row, part);
    float* to = call.partials.output + at * problem.value_size;
    for (int64_t d = 0; d < problem.value_size; d++) {
      to[d] = output[d * step];
    }
    call.partials.largest[at] = state.largest[lane];
    call.partials.denominator[at] = state.denominator[lane];
    return;
  }
  const bool is_empty = state.denominator[lane] == 0;
  const float denominator = static_cast<float>(state.denominator[lane]);
  float* to = call.outputs.output + query_row(problem.output, sequence, place.batch, query, head);
  for (int64_t d = 0; d < problem.value_size; d++) {
    to[d] = is_empty ? 0 : output[d * step] / denominator;
  }
  store_lse(call.outputs, lse_row(problem, sequence, place.batch, query, head), state.largest[lane],
            state.denominator[lane]);
}

/** One group against one tile of keys. */
inline void attend_tile(const ForwardCall& call, QueryGroup& group, const ForwardMemory& memory, int64_t batch,
                        int64_t key, int64_t count, bool finite_values, const Dropout& dropout) {
  const Problem& problem = call.problem;
  const int lanes = group.lanes.count;
  const ScoreTile tile = visible_part(memory.scores, lanes, key, count, group.lanes);
  const int keys = tile.last - tile.first;
  if (keys == 0) {
    return;
  }
  const int64_t size = problem.head_size, value_stride = padded_rows(problem.value_size);
  float* scores = tile.scores + tile.first * lanes;
  multiply<Left::rows, Into::set>({memory.keys + tile.first * size, size, group.queries, lanes, scores, lanes, keys,
                                   lanes, static_cast<int>(size)});
  float scale;
  if (!complete_scores(tile, group.lanes, problem, call.tensors, memory.bias, nullptr, &scale)) {
    return;
  }
  weigh_scores(tile, group.lanes, scale, dropout, batch, group.softmax);
  const float* values = memory.values + tile.first * value_stride;
  if (finite_values) {
    multiply<Left::columns, Into::rescale>({values, value_stride, scores, lanes, group.output, lanes,
                                            static_cast<int>(value_stride), lanes, keys, group.softmax.rescale});
    return;
  }
  for (int64_t d = 0; d < problem.value_size; d++) {
    for (int lane = 0; lane < lanes; lane++) {
      group.output[d * lanes + lane] *= group.softmax.rescale[lane];
    }
  }
  add_visible_values(tile, group.lanes, problem, call.tensors, memory.values, value_stride, group.output, 1, lanes);
}

inline void forward_block(const ForwardCall& call, const BlockPlace& place, int64_t part, void* memory_of_task) {
  const Problem& problem = call.problem;
  const Tensors& tensors = call.tensors;
  const Rows& rows = call.schedule.rows;
  const Sequence& sequence = call.sequences[place.batch];
  Scratch scratch(memory_of_task);
  ForwardMemory memory = take_forward(scratch, problem, tensors);
  const Dropout dropout(problem);
  const int64_t first_row = place.block * rows.block_rows;
  const int64_t block_rows = smaller_of(rows.block_rows, rows.unit_rows - first_row);
  const int groups = static_cast<int>((block_rows + GROUP_LANES - 1) / GROUP_LANES);
  const int64_t value_rows = padded_rows(problem.value_size);
  int64_t begin = INT64_MAX, end = 0;
  for (int g = 0; g < groups; g++) {
    QueryGroup& group = memory.groups[g];
    const int64_t first = first_row + g * GROUP_LANES;
    group.lanes.count = static_cast<int>(rounded_up(smaller_of(GROUP_LANES, rows.unit_rows - first), LANES));
    fill_lanes(group.lanes, problem, tensors, sequence, rows, place, first);
    pack_lanes(problem.q, tensors.q, sequence, place.batch, group.lanes, problem.head_size, group.queries);
    zero_row(group.output, value_rows * group.lanes.count);
    begin_softmax(group.softmax, group.lanes, part == 0 ? tensors.sinks : nullptr);
    if (group.lanes.any_begin < group.lanes.any_end) {
      begin = smaller_of(begin, group.lanes.any_begin);
      end = larger_of(end, group.lanes.any_end);
    }
  }
  const int64_t key_head = key_head_of(problem, rows, place.unit);
  const int64_t part_begin = part * call.schedule.part_keys;
  begin = larger_of(begin / TILE_KEYS * TILE_KEYS, part_begin);
  end = smaller_of(end, part_begin + call.schedule.part_keys);
  for (int64_t key = begin; key < end; key += TILE_KEYS) {
    const int64_t count = smaller_of(TILE_KEYS, end - key);
    const int64_t padded = rounded_up(count, 4);
    pack_keys(problem, tensors, problem.k, tensors.k, sequence, key_head, key, count, problem.head_size, memory.keys,
              problem.head_size, padded);
    const bool finite = pack_keys(problem, tensors, problem.v, tensors.v, sequence, key_head, key, count,
                                  problem.value_size, memory.values, value_rows, padded);
    for (int g = 0; g < groups; g++) {
      attend_tile(call, memory.groups[g], memory, place.batch, key, count, finite, dropout);
    }
  }
  for (int g = 0; g < groups; g++) {
    QueryGroup& group = memory.groups[g];
    for (int lane = 0; lane < group.lanes.rows; lane++) {
      store_row(call, sequence, place, first_row + g * GROUP_LANES + lane, part, group.lanes.head[lane],
                group.lanes.query[lane], group.softmax, lane, group.output + lane, group.lanes.count);
    }
  }
}

/** Joins the parts of the keys: each weighs as much as its denominator, brought to the largest score of all. */
inline void merge_row(const ForwardCall& call, const Sequence& sequence, const BlockPlace& place, int64_t row,
                      int32_t head, int32_t query) {
  const Problem& problem = call.problem;
  const int64_t parts = call.schedule.parts;
  const int64_t at = partial_row(call.schedule.rows, parts, place.batch, place.unit, row, 0);
  float largest = -INFINITE;
  for (int64_t part = 0; part < parts; part++) {
    const float here = call.partials.largest[at + part];
    largest = here > largest || here != here ? here : largest;
  }
  float* to = call.outputs.output + query_row(problem.output, sequence, place.batch, query, head);
  zero_row(to, problem.value_size);
  double denominator = 0;
  for (int64_t part = 0; part < parts; part++) {
    if (call.partials.denominator[at + part] == 0) {
      continue;
    }
    const double weight = __builtin_exp(static_cast<double>(call.partials.largest[at + part]) - largest);
    denominator += weight * call.partials.denominator[at + part];
    const float* from = call.partials.output + (at + part) * problem.value_size;
    for (int64_t d = 0; d < problem.value_size; d++) {
      to[d] += static_cast<float>(weight) * from[d];
    }
  }
  if (denominator != 0) {
    for (int64_t d = 0; d < problem.value_size; d++) {
      to[d] /= static_cast<float>(denominator);
    }
  }
  store_lse(call.outputs, lse_row(problem, sequence, place.batch, query, head), largest, denominator);
}

}  // namespace
}  // namespace flash_attention
