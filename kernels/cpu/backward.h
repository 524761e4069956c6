// The backward pass of FlashAttention-2 (Dao, 2023, algorithm 2). A task owns a chunk of the keys of one key head: it
// walks the rows of all query heads that read them, so that dK and dV are summed in one place and in one order. With
// P the weights and D = rowsum(dO∘O) − dLSE: dV = (P∘keep)ᵀdO, dS = P∘(keep∘dO·Vᵀ − D), dQ = dS·K, dK = dSᵀQ.
#pragma once

#include "forward.h"

namespace flash_attention {
namespace {

constexpr int BACKWARD_LANES = static_cast<int>(BACKWARD_BLOCK_ROWS);

/** A block of rows with what the backward pass needs of it: rows as lanes (transposed) and as rows. */
struct GradientRows {
  Lanes lanes;
  /** The LSE and its tail, and D. */
  float* lse;
  float* tail;
  float* delta;
  /** [D][lanes], [Dv][lanes]. */
  float* queries_by_lane;
  float* d_output_by_lane;
  /** [lanes][D padded], [lanes][Dv padded]. */
  float* queries;
  float* d_output;
  /** [D padded][lanes]. */
  float* d_queries;
  bool finite;
};

/** One tile of keys against a block of rows. */
struct GradientTile {
  /** [keys][D padded], [keys][Dv padded]. */
  float* keys;
  float* values;
  /** [keys][lanes]: scores, then weights; dP, then dS; slopes of the softcap. */
  float* weights;
  float* d_scores;
  float* slopes;
  float* bias;
  bool finite;
};

inline GradientRows take_gradient_rows(Scratch& scratch, const Problem& problem) {
  const PaddedSizes sizes = padded_sizes(problem);
  GradientRows rows;
  rows.lanes = take_lanes(scratch, BACKWARD_LANES);
  rows.lse = scratch.take<float>(BACKWARD_LANES);
  rows.tail = scratch.take<float>(BACKWARD_LANES);
  rows.delta = scratch.take<float>(BACKWARD_LANES);
  rows.queries_by_lane = scratch.take<float>(problem.head_size * BACKWARD_LANES);
  rows.d_output_by_lane = scratch.take<float>(problem.value_size * BACKWARD_LANES);
  rows.queries = scratch.take<float>(sizes.head * BACKWARD_LANES);
  rows.d_output = scratch.take<float>(sizes.value * BACKWARD_LANES);
  rows.d_queries = scratch.take<float>(sizes.head * BACKWARD_LANES);
  return rows;
}

inline GradientTile take_gradient_tile(Scratch& scratch, const Problem& problem, const Tensors& tensors) {
  const PaddedSizes sizes = padded_sizes(problem);
  constexpr int64_t pairs = TILE_KEYS * BACKWARD_LANES;
  GradientTile tile;
  tile.keys = scratch.take<float>(TILE_KEYS * sizes.head);
  tile.values = scratch.take<float>(TILE_KEYS * sizes.value);
  tile.weights = scratch.take<float>(pairs);
  tile.d_scores = scratch.take<float>(pairs);
  tile.slopes = problem.softcap > 0 ? scratch.take<float>(pairs) : nullptr;
  tile.bias = tensors.mask || tensors.bias ? scratch.take<float>(pairs) : nullptr;
  return tile;
}

/** D of a row: rowsum(dO∘O) − dLSE. */
inline float row_delta(const BackwardCall& call, int64_t output_at, int64_t lse_at) {
  const float* output = call.inputs.output + output_at;
  const float* d_output = call.inputs.d_output + output_at;
  Vector sums{};
  int64_t d = 0;
  for (; d + LANES <= call.problem.value_size; d += LANES) {
    sums += load(output + d) * load(d_output + d);
  }
  float total = sum(sums);
  for (; d < call.problem.value_size; d++) {
    total += output[d] * d_output[d];
  }
  return call.inputs.d_lse ? total - call.inputs.d_lse[lse_at] : total;
}

/** Brings a block of rows into cache. */
inline void load_gradient_rows(GradientRows& rows, const BackwardCall& call, const BlockPlace& place) {
  const Problem& problem = call.problem;
  const Sequence& sequence = call.sequences[place.batch];
  const PaddedSizes sizes = padded_sizes(problem);
  Lanes& lanes = rows.lanes;
  const int64_t first = place.block * call.schedule.rows.block_rows;
  lanes.count = static_cast<int>(rounded_up(smaller_of(BACKWARD_LANES, call.schedule.rows.unit_rows - first), LANES));
  fill_lanes(lanes, problem, call.tensors, sequence, call.schedule.rows, place, first);
  pack_lanes(problem.q, call.tensors.q, sequence, place.batch, lanes, problem.head_size, rows.queries_by_lane);
  pack_lanes(problem.output, call.inputs.d_output, sequence, place.batch, lanes, problem.value_size,
             rows.d_output_by_lane);
  rows.finite = pack_rows(problem.q, call.tensors.q, sequence, place.batch, lanes, problem.head_size, rows.queries,
                          sizes.head);
  rows.finite &= pack_rows(problem.output, call.inputs.d_output, sequence, place.batch, lanes, problem.value_size,
                           rows.d_output, sizes.value);
  for (int lane = 0; lane < lanes.count; lane++) {
    rows.lse[lane] = rows.tail[lane] = rows.delta[lane] = 0;
    if (lane >= lanes.rows || lanes.query[lane] >= sequence.queries) {
      hide_lane(lanes, lane);
      continue;
    }
    const int64_t at = lse_row(problem, sequence, place.batch, lanes.query[lane], lanes.head[lane]);
    if (call.inputs.lse[at] == -INFINITE) {
      hide_lane(lanes, lane);
      continue;
    }
    rows.lse[lane] = call.inputs.lse[at];
    rows.tail[lane] = call.inputs.lse_tail[at];
    rows.delta[lane] =
        row_delta(call, query_row(problem.output, sequence, place.batch, lanes.query[lane], lanes.head[lane]), at);
    rows.finite &= __builtin_isfinite(rows.lse[lane]) && __builtin_isfinite(rows.delta[lane]);
  }
}

inline void load_gradient_tile(GradientTile& tile, const BackwardCall& call, const Sequence& sequence,
                               int64_t key_head, int64_t key, int64_t count) {
  const Problem& problem = call.problem;
  const PaddedSizes sizes = padded_sizes(problem);
  const int64_t padded = rounded_up(count, 4);
  tile.finite = pack_keys(problem, call.tensors, problem.k, call.tensors.k, sequence, key_head, key, count,
                          problem.head_size, tile.keys, sizes.head, padded);
  tile.finite &= pack_keys(problem, call.tensors, problem.v, call.tensors.v, sequence, key_head, key, count,
                           problem.value_size, tile.values, sizes.value, padded);
}

/**
 * From scores and dP of a tile to the weights that meet dO and to dS, hidden pairs 0, in place: dS of the scores as the
 * softmax takes them, or where `of_products` of the products q·k, by the softcap's slope and the scale.
 */
template <bool PARTIAL>
inline void differentiate_columns(const ScoreTile& scores, const GradientTile& tile, const GradientRows& rows,
                                  const Problem& problem, float scale, const Dropout& dropout, int64_t batch,
                                  bool of_products) {
  // Where something is not finite only the visible pairs are read, and 0·∞ of theirs must stay what it is.
  const bool finite = rows.finite && tile.finite;
  const float product_scale = of_products ? static_cast<float>(problem.softmax_scale) : 1.f;
  for (int column = 0; column < rows.lanes.count; column += LANES) {
    const Integers begin = load(rows.lanes.begin + column), end = load(rows.lanes.end + column);
    const Vector lse = load(rows.lse + column), tail = load(rows.tail + column), delta = load(rows.delta + column);
    for (int n = scores.first; n < scores.last; n += 4) {
      Vector kept[4];
      if (dropout.active) {
        dropout.factors(batch, rows.lanes.head + column, rows.lanes.query + column, (scores.key + n) / 4, kept);
      }
#pragma GCC unroll 4
      for (int u = 0; u < 4; u++) {
        const int at = (n + u) * scores.stride + column;
        Vector product = load(scores.scores + at);
        if (PARTIAL) {
          const Integers key = splat(static_cast<int32_t>(scores.key + n + u));
          product = (key >= begin) & (key < end) ? product : splat(-INFINITE);
        }
        const Vector weight = exponential((product * scale - lse) - tail);
        const Vector d_weight = load(tile.d_scores + at);
        Vector d_score = weight * ((dropout.active ? d_weight * kept[u] : d_weight) - delta) * product_scale;
        if (of_products && tile.slopes) {
          d_score *= load(tile.slopes + at);
        }
        store(scores.scores + at, dropout.active ? weight * kept[u] : weight);
        if (finite) {
          d_score = product == splat(-INFINITE) ? splat(0.f) : d_score;
        }
        store(tile.d_scores + at, d_score);
      }
    }
  }
}

/** Scores again, and dP: then weights and dS. False if no pair of the tile is visible. */
inline bool differentiate(const BackwardCall& call, GradientTile& tile, const GradientRows& rows, int64_t batch,
                          int64_t key, int64_t count, const Dropout& dropout, bool of_products, ScoreTile* result) {
  const Problem& problem = call.problem;
  const PaddedSizes sizes = padded_sizes(problem);
  const int lanes = rows.lanes.count;
  const ScoreTile scores = visible_part(tile.weights, lanes, key, count, rows.lanes);
  const int keys = scores.last - scores.first;
  *result = scores;
  if (keys == 0) {
    return false;
  }
  const int64_t from = static_cast<int64_t>(scores.first) * lanes;
  multiply<Left::rows, Into::set>({tile.keys + scores.first * sizes.head, sizes.head, rows.queries_by_lane, lanes,
                                   tile.weights + from, lanes, keys, lanes, static_cast<int>(problem.head_size)});
  float scale;
  if (!complete_scores(scores, rows.lanes, problem, call.tensors, tile.bias, tile.slopes, &scale)) {
    return false;
  }
  multiply<Left::rows, Into::set>({tile.values + scores.first * sizes.value, sizes.value, rows.d_output_by_lane, lanes,
                                   tile.d_scores + from, lanes, keys, lanes, static_cast<int>(problem.value_size)});
  if (is_partial(scores, rows.lanes)) {
    differentiate_columns<true>(scores, tile, rows, problem, scale, dropout, batch, of_products);
  } else {
    differentiate_columns<false>(scores, tile, rows, problem, scale, dropout, batch, of_products);
  }
  return true;
}

/** Sums of a task's own chunk: [keys][D padded], [keys][Dv padded]. */
struct KeyGradients {
  float* d_keys;
  float* d_values;
};

/** What a tile adds to dQ, dK and dV, pair by visible pair: where a NaN or an infinity is about. */
inline void add_visible_gradients(const BackwardCall& call, const ScoreTile& scores, const GradientTile& tile,
                                  GradientRows& rows, const KeyGradients& into) {
  const Problem& problem = call.problem;
  const PaddedSizes sizes = padded_sizes(problem);
  for (int lane = 0; lane < rows.lanes.rows; lane++) {
    for (int n = scores.first; n < scores.last; n++) {
      if (!is_visible(rows.lanes, problem, call.tensors, lane, scores.key + n)) {
        continue;
      }
      const float weight = scores.scores[n * scores.stride + lane];
      const float d_score = tile.d_scores[n * scores.stride + lane];
      if (call.gradients.d_q) {
        for (int64_t d = 0; d < problem.head_size; d++) {
          rows.d_queries[d * rows.lanes.count + lane] += d_score * tile.keys[n * sizes.head + d];
        }
      }
      if (into.d_keys) {
        for (int64_t d = 0; d < problem.head_size; d++) {
          into.d_keys[n * sizes.head + d] += d_score * rows.queries[lane * sizes.head + d];
        }
      }
      if (into.d_values) {
        for (int64_t d = 0; d < problem.value_size; d++) {
          into.d_values[n * sizes.value + d] += weight * rows.d_output[lane * sizes.value + d];
        }
      }
    }
  }
}

/** What a tile adds to dQ, dK and dV. `into` starts at the tile's first key. */
inline void add_gradients(const BackwardCall& call, const ScoreTile& scores, const GradientTile& tile,
                          GradientRows& rows, const KeyGradients& into) {
  if (!rows.finite || !tile.finite) {
    add_visible_gradients(call, scores, tile, rows, into);
    return;
  }
  const PaddedSizes sizes = padded_sizes(call.problem);
  const int lanes = rows.lanes.count, keys = scores.last - scores.first;
  const int64_t from = static_cast<int64_t>(scores.first) * lanes;
  if (into.d_values) {
    multiply<Left::rows, Into::add>({tile.weights + from, lanes, rows.d_output, sizes.value,
                                     into.d_values + scores.first * sizes.value, sizes.value, keys,
                                     static_cast<int>(sizes.value), lanes});
  }
  if (into.d_keys) {
    multiply<Left::rows, Into::add>({tile.d_scores + from, lanes, rows.queries, sizes.head,
                                     into.d_keys + scores.first * sizes.head, sizes.head, keys,
                                     static_cast<int>(sizes.head), lanes});
  }
  if (call.gradients.d_q) {
    multiply<Left::columns, Into::add>({tile.keys + scores.first * sizes.head, sizes.head, tile.d_scores + from, lanes,
                                        rows.d_queries, lanes, static_cast<int>(sizes.head), lanes, keys});
  }
}

/** Writes dQ of a block's rows, or with several chunks what this one adds to it. */
inline void store_d_queries(const BackwardCall& call, const GradientRows& rows, const BlockPlace& place,
                            int64_t chunk) {
  const Problem& problem = call.problem;
  const Sequence& sequence = call.sequences[place.batch];
  const int64_t first = place.block * call.schedule.rows.block_rows;
  for (int lane = 0; lane < rows.lanes.rows; lane++) {
    const int32_t head = rows.lanes.head[lane], query = rows.lanes.query[lane];
    if (query >= sequence.query_rows) {
      continue;
    }
    float* to = call.schedule.chunks > 1
        ? call.d_q_parts + partial_row(call.schedule.rows, call.schedule.chunks, place.batch, place.unit, first + lane,
                                       chunk) * problem.head_size
        : call.gradients.d_q + query_row(problem.q, sequence, place.batch, query, head);
    for (int64_t d = 0; d < problem.head_size; d++) {
      to[d] = rows.d_queries[d * rows.lanes.count + lane];
    }
  }
}

/** Writes the sums of a chunk to rows of dK or dV. */
inline void store_key_gradients(const Problem& problem, const Tensors& tensors, const Sequence& sequence,
                                const Strides& strides, int64_t key_head, int64_t first, int64_t count,
                                const float* from, int64_t padded, int64_t size, float* to) {
  for (int64_t n = 0; n < count; n++) {
    float* row = to + (key_row(problem, tensors, strides, to, sequence, first + n, key_head) - to);
    for (int64_t d = 0; d < size; d++) {
      row[d] = from[n * padded + d];
    }
  }
}

struct BackwardMemory {
  GradientRows rows;
  GradientTile tile;
  KeyGradients sums;
};

inline BackwardMemory take_backward(Scratch& scratch, const BackwardCall& call) {
  const PaddedSizes sizes = padded_sizes(call.problem);
  const int64_t keys = rounded_up(smaller_of(call.schedule.chunk_keys, call.problem.key_length), 4);
  BackwardMemory memory;
  memory.rows = take_gradient_rows(scratch, call.problem);
  memory.tile = take_gradient_tile(scratch, call.problem, call.tensors);
  memory.sums.d_keys = call.gradients.d_k ? scratch.take<float>(keys * sizes.head) : nullptr;
  memory.sums.d_values = call.gradients.d_v ? scratch.take<float>(keys * sizes.value) : nullptr;
  return memory;
}

/** The rows of a task: blocks of one unit, or of each query head of the key head. */
inline void backward_chunk(const BackwardCall& call, int64_t batch, int64_t key_head, int64_t chunk,
                           void* memory_of_task) {
  const Problem& problem = call.problem;
  const Rows& rows = call.schedule.rows;
  const Sequence& sequence = call.sequences[batch];
  const PaddedSizes sizes = padded_sizes(problem);
  Scratch scratch(memory_of_task);
  BackwardMemory memory = take_backward(scratch, call);
  const Dropout dropout(problem);
  const int64_t chunk_begin = chunk * call.schedule.chunk_keys;
  const int64_t chunk_keys = larger_of(0, smaller_of(call.schedule.chunk_keys, sequence.keys - chunk_begin));
  if (memory.sums.d_keys) {
    zero_row(memory.sums.d_keys, rounded_up(chunk_keys, 4) * sizes.head);
  }
  if (memory.sums.d_values) {
    zero_row(memory.sums.d_values, rounded_up(chunk_keys, 4) * sizes.value);
  }
  const int64_t group = problem.query_heads / problem.key_heads;
  const int64_t units = rows.heads_together ? 1 : group;
  for (int64_t n = 0; n < units * rows.blocks; n++) {
    const BlockPlace place = {batch, key_head * units + n / rows.blocks, n % rows.blocks};
    load_gradient_rows(memory.rows, call, place);
    zero_row(memory.rows.d_queries, sizes.head * memory.rows.lanes.count);
    const Lanes& lanes = memory.rows.lanes;
    const int64_t begin = larger_of(lanes.any_begin / TILE_KEYS * TILE_KEYS, chunk_begin);
    const int64_t end = smaller_of(lanes.any_end, chunk_begin + chunk_keys);
    for (int64_t key = begin; key < end; key += TILE_KEYS) {
      const int64_t count = smaller_of(TILE_KEYS, end - key);
      load_gradient_tile(memory.tile, call, sequence, key_head, key, count);
      ScoreTile scores;
      if (differentiate(call, memory.tile, memory.rows, batch, key, count, dropout, true, &scores)) {
        const int64_t at = key - chunk_begin;
        const KeyGradients into = {memory.sums.d_keys ? memory.sums.d_keys + at * sizes.head : nullptr,
                                   memory.sums.d_values ? memory.sums.d_values + at * sizes.value : nullptr};
        add_gradients(call, scores, memory.tile, memory.rows, into);
      }
    }
    if (call.gradients.d_q) {
      store_d_queries(call, memory.rows, place, chunk);
    }
  }
  if (call.gradients.d_k) {
    store_key_gradients(problem, call.tensors, sequence, problem.k, key_head, chunk_begin, chunk_keys,
                        memory.sums.d_keys, sizes.head, problem.head_size, call.gradients.d_k);
  }
  if (call.gradients.d_v) {
    store_key_gradients(problem, call.tensors, sequence, problem.v, key_head, chunk_begin, chunk_keys,
                        memory.sums.d_values, sizes.value, problem.value_size, call.gradients.d_v);
  }
}

/** Sums what the chunks add to dQ of a row. */
inline void merge_d_query(const BackwardCall& call, const Sequence& sequence, const BlockPlace& place, int64_t row,
                          int32_t head, int32_t query) {
  const Problem& problem = call.problem;
  const int64_t chunks = call.schedule.chunks, size = problem.head_size;
  const float* from = call.d_q_parts +
      partial_row(call.schedule.rows, chunks, place.batch, place.unit, row, 0) * size;
  float* to = call.gradients.d_q + query_row(problem.q, sequence, place.batch, query, head);
  for (int64_t d = 0; d < size; d++) {
    float total = from[d];
    for (int64_t chunk = 1; chunk < chunks; chunk++) {
      total += from[chunk * size + d];
    }
    to[d] = total;
  }
}

}  // namespace
}  // namespace flash_attention
