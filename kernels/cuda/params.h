// What the host gives every CUDA kernel: one plain struct, in the constant bank, for both sides of the driver API.
//
// Canonical operands. q, k, v and dO are written once as rows of 16 bits, so that tile kernels know no layout, page or
// packed tensor: [units][rows of all batches][DP], DP = 64, 128 or 256, zeros past D and past a sequence's last row.
// A unit is a query head; a key head for k and v, and for q and dO where the rows of all query heads of a key head lie
// in one unit (heads_per_unit > 1: row r is head r / query_length, query r % query_length). Row r of batch b and unit u
// is row u·rows + start(b) + r (Rows::start below). Every batch starts at a multiple of TILE_ROWS and has that multiple
// to itself, so a tile never reads past the buffer and what it reads of another batch's rows is hidden or not stored.
//
// Values. bf16: rounded, scale 1. f16: times a power of two (power_of in scales.h) that brings a bound of the finite
// magnitudes of the batch and key head (all query heads that read it) into [2^14, 2^15); split f16: the same, `low` is
// what rounding took from `high`. One power for all of them, not one a row: it leaves inner loops alone and serves the
// products that sum over rows too. The bound is 4 to 8 times the largest of a sample, or where that was too little the
// largest of all (convert.cu): a number rounds by 2^-11 (f16) or 2^-22 (split) of itself, or by 2^-37 of the largest.
// Elements that are NaN or infinite are 0 here, and flag the batch and key head as `odd`: exact_*.cuh computes all
// rows of those from the float32 tensors, after the tile kernels, which need not care.
//
// Row statistics (LSE in base 2, D) are float32 [units][rows], like q.
#pragma once

#include <stdint.h>

namespace flash_attention {
namespace cuda {

/** A batch's canonical rows are a multiple of this, and so is where they start. */
constexpr int32_t TILE_ROWS = 128;
/** One for each pass of Hopper kernels. */
constexpr int32_t TILE_COUNTERS = 5;
constexpr float LOG2_E = 1.44269504088896340736f;

#ifdef __CUDACC__
#define FLASH_BOTH __host__ __device__ inline
#else
#define FLASH_BOTH inline
#endif

/** As kernels/cpu/problem.h: elements between neighbours of a tensor of float32 rows. */
struct RowStrides {
  int64_t base, batch, row, head;
};

struct PairStrides {
  int64_t batch, head, query, key;
};

/** How batches lie in a unit's canonical rows. */
struct CanonicalRows {
  /** Of all batches together, a multiple of TILE_ROWS. */
  int64_t rows;
  /** Between batches; 0 where rows of all sequences lie end to end. */
  int64_t per_batch;

  /** `first`: the sequence's first row in its tensor. End to end there are gaps of up to two tiles. */
  FLASH_BOTH int64_t start(int64_t batch, int64_t first) const {
    return per_batch > 0 ? batch * per_batch : (first + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS + batch * TILE_ROWS;
  }
};

/** Canonical rows of one tensor; `low` only of split f16. */
struct Operand {
  uint16_t* high;
  uint16_t* low;
};

/**
 * Of one key head of one batch and the query heads that read it. Magnitudes are bits of floats that are not negative,
 * so that integer atomics find the largest; 0 with bf16, which needs none. Of q, k, v and dO only the exponent means
 * anything.
 */
struct GroupState {
  /** Not 0 where q, k, v or dO hold a NaN or an infinity. */
  uint32_t odd;
  /** Bounds of the finite magnitudes, in powers of two. */
  uint32_t q, k, v, d_output;
  /** Largest sums of squares of a row, and the largest |D|. */
  uint32_t v_squares, d_output_squares, delta;
  /** Of q, k, v, dO the bits 1, 2, 4, 8: its magnitude was found too small while it was converted. */
  uint32_t again;
};

/** Where it lies and how long it is, of a batch; as kernels/cpu/sequences.h. */
struct SequencePlace {
  int32_t query_first, queries, key_first, keys;
  /** Batch of k and v, or with pages the sequence itself. */
  int32_t key_batch;
  /** Rows of q to be written: with padded tensors those past the sequence too. */
  int32_t query_rows;
};

struct Params {
  // The problem.
  int32_t batch, query_length, key_length, query_heads, key_heads, head_size, value_size;
  int32_t query_rows, key_rows, key_batches, page_size, pages_per_sequence;
  int32_t packed, bottom_right;
  int32_t window_left, window_right;
  float softmax_scale, softcap, kept_scale;
  uint32_t dropout, dropout_threshold, seed_low, seed_high;
  /** What the draws add to a batch and a query head, where the call is a part of a larger one. */
  uint32_t first_batch, first_query_head;
  RowStrides q_strides, k_strides, v_strides, output_strides;
  int64_t lse_batch, lse_head, alibi_batch;
  PairStrides mask_strides, bias_strides;
  int32_t bias_shape[4];

  /** Which tensors a launch of convert.cu is for: bits 1 q, 2 k, 4 v, 8 dO. */
  int32_t which;

  // Its tensors, float32, in device memory; null where a call has none.
  const float *q, *k, *v, *bias, *alibi_slopes, *sinks, *d_output, *d_lse;
  const uint8_t* mask;
  const int32_t *sequences, *block_table;
  /** Of the forward pass: written by it, read by the backward pass. */
  float *output, *lse, *lse_tail;
  float *d_q, *d_k, *d_v, *d_bias;

  // How it is cut.
  int32_t dp, units, heads_per_unit;
  /**
   * Rows of a unit of a batch at most, and the parts of the keys, whose results are merged. Tile kernels cut key_length
   * into part_keys; the kernels for few rows cut what their rows see.
   */
  int32_t unit_rows, parts, part_keys;
  /** Whether rows.cuh works on all units, not only on those with odd operands. */
  int32_t all_odd;
  CanonicalRows query_place, key_place;

  // Workspace.
  /** [B], made by locate.cu. */
  SequencePlace* places;
  /** [B][Hkv]. */
  GroupState* groups;
  /** [TILE_COUNTERS], 0 when the tile kernels start: of hopper/launch.h. */
  uint32_t* tile_counters;
  Operand q16, k16, v16, d_output16;
  /** Parts of the forward pass: [parts][units][query rows][value_size], and {largest in base 2, denominator}. */
  float* part_output;
  float* part_state;
  /**
   * Rows of the backward pass, [units][query rows]: LSE in base 2 less weight_exponent (FOLDED_EXPONENT of mma.cuh: 14
   * with f16, else 0) as high and low part, and D. +∞, 0, 0 of rows that see nothing.
   */
  int32_t weight_exponent;
  float *lse_high, *lse_low, *delta;
  /** Where dQ is added in any order, else null: sums of hopper/query_sums.cuh, [units][query rows][dp], 0 at first. */
  float* d_q_sums;
};

/** Of flash_clear_rows: rows of `size` elements are set to 0. */
struct ClearParams {
  float* data;
  RowStrides strides;
  int32_t size;
};

}  // namespace cuda
}  // namespace flash_attention
