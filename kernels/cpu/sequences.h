// Where the sequences of a call lie, and which keys a query sees as far as lengths and window tell.
#pragma once

#include "problem.h"

namespace flash_attention {

/** Where one sequence lies, inside the tensors. Rows count from its batch's first. */
struct Sequence {
  int64_t query_first, queries, key_first, keys;
  /** Batch of k and v, or with pages the sequence itself. */
  int64_t key_batch;
  /** Rows of q to be written: those of the sequence, and in padded tensors the padding too. */
  int64_t query_rows;
};

namespace {

constexpr int SEQUENCE_FIELDS = 5;

inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t bounded(int64_t value, int64_t most) { return larger_of(0, smaller_of(value, most)); }
inline int64_t rounded_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/** Brings whatever `sequences` holds inside the tensors. */
inline Sequence sequence_of(const Problem& problem, const Tensors& tensors, int64_t batch) {
  if (!tensors.sequences) {
    return {0, problem.query_length, 0, problem.key_length, batch, problem.query_length};
  }
  const int32_t* fields = tensors.sequences + batch * SEQUENCE_FIELDS;
  const int64_t query_rows = problem.packed_sequences ? problem.query_rows : problem.query_length;
  const int64_t key_rows = problem.packed_sequences ? problem.key_rows : problem.key_length;
  Sequence sequence;
  // In padded batches each sequence has all of its batch's rows; there is nothing but 0 that the op would write.
  sequence.query_first = problem.packed_sequences ? bounded(fields[0], query_rows) : 0;
  sequence.queries = bounded(fields[1], smaller_of(problem.query_length, query_rows - sequence.query_first));
  sequence.key_first = bounded(fields[2], key_rows);
  sequence.keys = bounded(fields[3], smaller_of(problem.key_length, key_rows - sequence.key_first));
  sequence.key_batch = problem.page_size > 0 ? batch : bounded(fields[4], problem.key_batches - 1);
  sequence.query_rows = problem.packed_sequences ? sequence.queries : problem.query_length;
  return sequence;
}

/** Key j is on the diagonal of query i when j = i + offset. */
inline int64_t diagonal_offset(const Problem& problem, const Sequence& sequence) {
  return problem.bottom_right ? sequence.keys - sequence.queries : 0;
}

/** First key that a query sees. */
inline int64_t key_begin(const Problem& problem, const Sequence& sequence, int64_t query) {
  if (problem.window_left < 0) {
    return 0;
  }
  return larger_of(0, query + diagonal_offset(problem, sequence) - problem.window_left);
}

/** One past the last key that a query sees. */
inline int64_t key_end(const Problem& problem, const Sequence& sequence, int64_t query) {
  if (query >= sequence.queries) {
    return 0;
  }
  if (problem.window_right < 0) {
    return sequence.keys;
  }
  return bounded(query + diagonal_offset(problem, sequence) + problem.window_right + 1, sequence.keys);
}

/** The elements of a row of k or v. `row` counts from the sequence's first key. */
inline const float* key_row(const Problem& problem, const Tensors& tensors, const Strides& strides, const float* data,
                            const Sequence& sequence, int64_t row, int64_t head) {
  row += sequence.key_first;
  int64_t batch = sequence.key_batch;
  if (problem.page_size > 0) {
    const int32_t page = tensors.block_table[batch * problem.pages_per_sequence + row / problem.page_size];
    batch = bounded(page, problem.key_batches - 1);
    row %= problem.page_size;
  }
  return data + strides.base + batch * strides.batch + row * strides.row + head * strides.head;
}

/** Element 0 of a row of q, of the output, or of what lies as they do. */
inline int64_t query_row(const Strides& strides, const Sequence& sequence, int64_t batch, int64_t query, int64_t head) {
  return strides.base + batch * strides.batch + (sequence.query_first + query) * strides.row + head * strides.head;
}

/** Index of a row in the LSE and what is like it. */
inline int64_t lse_row(const Problem& problem, const Sequence& sequence, int64_t batch, int64_t query, int64_t head) {
  return batch * problem.lse_batch + head * problem.lse_head + sequence.query_first + query;
}

}  // namespace
}  // namespace flash_attention
