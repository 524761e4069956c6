// What a call computes, as src/op/problem.ts has it: plain data, checked by whoever fills it in.
#pragma once

#include <cstdint>

namespace flash_attention {

/** Elements between neighbours along each axis of a tensor of rows, and where its first element is. */
struct Strides {
  int64_t base = 0;
  int64_t batch = 0;
  int64_t row = 0;
  int64_t head = 0;
};

/** The same for a tensor that broadcasts to [B,Hq,Nq,Nk]: 0 along an axis of 1. */
struct BroadcastStrides {
  int64_t batch = 0;
  int64_t head = 0;
  int64_t query = 0;
  int64_t key = 0;
};

/**
 * Letters: B batch, Nq and Nk lengths, Hq query heads, Hkv key heads (Hq a multiple), D head size, Dv value size.
 * Query head h reads key head h / (Hq / Hkv).
 */
struct Problem {
  int64_t batch = 0;
  /** Nq and Nk: the longest of all sequences where rows of all lie end to end. */
  int64_t query_length = 0;
  int64_t key_length = 0;
  /** Rows of the tensors along the length: the lengths, or all sequences' together, or those of a page. */
  int64_t query_rows = 0;
  int64_t key_rows = 0;
  int64_t query_heads = 0;
  int64_t key_heads = 0;
  int64_t head_size = 0;
  int64_t value_size = 0;
  /** Batches of k and v: B, those of a cache, or its pages. */
  int64_t key_batches = 0;
  /** Keys of a page, 0 without pages, and columns of the block table. */
  int64_t page_size = 0;
  int64_t pages_per_sequence = 0;
  /** Layout `thd`: rows of all sequences end to end. */
  bool packed_sequences = false;
  bool has_sequences = false;

  /** Key j is seen by query i when i + offset - window_left ≤ j ≤ i + offset + window_right; below 0: no bound. */
  int64_t window_left = -1;
  int64_t window_right = -1;
  /** Whether offset is the number of keys less that of queries, or 0. */
  bool bottom_right = true;
  double softmax_scale = 1;
  /** 0: none. */
  double softcap = 0;
  double dropout_p = 0;
  /** Two words of 32 bits. */
  uint32_t seed_low = 0;
  uint32_t seed_high = 0;
  /** Whether gradients must have the same bits every time. Kernels that are not slower so give them anyway. */
  bool deterministic = true;
  /** Where this call is a part of a larger one: what dropout adds to a batch and a query head to count as that does. */
  int64_t first_batch = 0;
  int64_t first_query_head = 0;

  /** Of q, k, v and the output; their gradients lie as they do. */
  Strides q, k, v, output;
  /** Of the LSE and what is like it; a row is one element. */
  int64_t lse_batch = 0;
  int64_t lse_head = 0;
  BroadcastStrides mask, bias;
  /** The bias's own axes, each 1 or as in [B,Hq,Nq,Nk]. */
  int64_t bias_shape[4] = {1, 1, 1, 1};
  /** Elements between the slopes of two batches: 0 or Hq. */
  int64_t alibi_batch = 0;
};

/** The tensors of a call; those that it does not have are null. */
struct Tensors {
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  const uint8_t* mask = nullptr;
  const float* bias = nullptr;
  /** [Hq] or [B,Hq]. */
  const float* alibi_slopes = nullptr;
  /** [Hq]. */
  const float* sinks = nullptr;
  /** [B,5], see src/op/sequences.ts; any numbers: they are brought inside the tensors here. */
  const int32_t* sequences = nullptr;
  /** [B,pages_per_sequence]; likewise. */
  const int32_t* block_table = nullptr;
};

/** Every element is written. `lse_tail` is what rounding to float32 took from the LSE (src/op/kernels.ts). */
struct ForwardOutputs {
  float* output = nullptr;
  float* lse = nullptr;
  float* lse_tail = nullptr;
};

/** What the backward pass takes besides the call's own tensors; `d_lse` may be null: zero. */
struct BackwardInputs {
  const float* output = nullptr;
  const float* lse = nullptr;
  const float* lse_tail = nullptr;
  const float* d_output = nullptr;
  const float* d_lse = nullptr;
};

/**
 * Gradients to compute: those that are not null, in the strides of what they are the gradients of, so that gradients of
 * packed tensors are several parts of one. `d_bias` in the bias's own shape. Every element of q's, k's, v's rows and of
 * the bias is written.
 */
struct Gradients {
  float* d_q = nullptr;
  float* d_k = nullptr;
  float* d_v = nullptr;
  float* d_bias = nullptr;
};

}  // namespace flash_attention
