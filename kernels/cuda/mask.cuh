// Which pairs are visible, and from products q·k to the scores that the softmax takes (kernels/cpu/scores.h).
#pragma once

#include "params.h"
#include "scales.h"

namespace flash_attention {
namespace cuda {

constexpr float INFINITE = __builtin_huge_valf();

__device__ __forceinline__ int bounded(int64_t value, int64_t most) {
  return static_cast<int>(value < 0 ? 0 : value < most ? value : most);
}

/** kernels/cpu/sequences.h: brings whatever `sequences` holds inside the tensors. */
__device__ __forceinline__ SequencePlace place_of(const Params& p, int batch) {
  if (!p.sequences) {
    return {0, p.query_length, 0, p.key_length, batch, p.query_length};
  }
  const int32_t* fields = p.sequences + batch * 5;
  const int query_rows = p.packed ? p.query_rows : p.query_length;
  const int key_rows = p.packed ? p.key_rows : p.key_length;
  SequencePlace place;
  place.query_first = p.packed ? bounded(fields[0], query_rows) : 0;
  place.queries = bounded(fields[1], min(p.query_length, query_rows - place.query_first));
  place.key_first = bounded(fields[2], key_rows);
  place.keys = bounded(fields[3], min(p.key_length, key_rows - place.key_first));
  place.key_batch = p.page_size > 0 ? batch : bounded(fields[4], p.key_batches - 1);
  place.query_rows = p.packed ? place.queries : p.query_length;
  return place;
}

/** What lengths and window tell of one batch. */
struct Band {
  int queries, keys, offset, left, right;

  __device__ __forceinline__ Band(const Params& p, const SequencePlace& place)
      : queries(place.queries), keys(place.keys), offset(p.bottom_right ? place.keys - place.queries : 0),
        left(p.window_left), right(p.window_right) {}

  /** First key that a query sees, and one past the last. */
  __device__ __forceinline__ int key_begin(int query) const { return left < 0 ? 0 : max(0, query + offset - left); }
  __device__ __forceinline__ int key_end(int query) const {
    return query >= queries ? 0 : right < 0 ? keys : min(max(query + offset + right + 1, 0), keys);
  }
  /** First query that may see a key, and one past the last. */
  __device__ __forceinline__ int query_begin(int key) const { return right < 0 ? 0 : max(0, key - offset - right); }
  __device__ __forceinline__ int query_end(int key) const {
    return key >= keys ? 0 : left < 0 ? queries : min(max(key - offset + left + 1, 0), queries);
  }
  __device__ __forceinline__ bool sees(int query, int key) const {
    return key >= key_begin(query) && key < key_end(query);
  }
  /** Whether all of [query, last query] see all of [key, key end). */
  __device__ __forceinline__ bool is_full(int query, int last_query, int key, int end) const {
    return last_query < queries && key_begin(last_query) <= key && end <= key_end(query);
  }
};

/** Random words of keys 4·block … 4·block + 3 of one query (kernels/cpu/philox.h). */
__device__ __forceinline__ uint4 philox(const Params& p, uint32_t batch, uint32_t head, uint32_t query,
                                        uint32_t block) {
  uint32_t c0 = block, c1 = query, c2 = head + p.first_query_head, c3 = batch + p.first_batch;
  uint32_t k0 = p.seed_low, k1 = p.seed_high;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t low0 = c0 * 0xD2511F53u, high0 = __umulhi(c0, 0xD2511F53u);
    const uint32_t low1 = c2 * 0xCD9E8D57u, high1 = __umulhi(c2, 0xCD9E8D57u);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return make_uint4(c0, c1, c2, c3);
}

/** Whether a pair is kept; of the pairs of one query and four keys, by the number of the key. */
__device__ __forceinline__ bool is_kept(const Params& p, const uint4& words, int key) {
  const uint32_t word = (key & 2) ? ((key & 1) ? words.w : words.z) : ((key & 1) ? words.y : words.x);
  return word >= p.dropout_threshold;
}

__device__ __forceinline__ bool keeps(const Params& p, int batch, int head, int query, int key) {
  return is_kept(p, philox(p, batch, head, query, key >> 2), key & 3);
}

/** What one pair's score is, in base 2; −∞ where mask or bias hide it. `slope`: ∂capped/∂scaled. */
__device__ __forceinline__ float finish_score(const Params& p, const Band& band, int batch, int head, int query,
                                              int key, float scaled, float* slope) {
  float score = scaled;
  if (p.softcap > 0) {
    const float capped = tanhf(score / p.softcap);
    score = capped * p.softcap;
    *slope = 1.f - capped * capped;
  }
  if (p.alibi_slopes) {
    const float distance = fabsf(static_cast<float>(query + band.offset) - static_cast<float>(key));
    score -= p.alibi_slopes[batch * p.alibi_batch + head] * distance;
  }
  if (p.mask && !p.mask[batch * p.mask_strides.batch + head * p.mask_strides.head + query * p.mask_strides.query +
                        key * p.mask_strides.key]) {
    return -INFINITE;
  }
  if (p.bias) {
    const float bias = p.bias[batch * p.bias_strides.batch + head * p.bias_strides.head +
                              query * p.bias_strides.query + key * p.bias_strides.key];
    score = bias == -INFINITE ? bias : score + bias;
  }
  return score * LOG2_E;
}

/** Where a row of a unit of the forward pass belongs. */
struct RowPlace {
  int head, query;
};

__device__ __forceinline__ RowPlace row_place(const Params& p, int unit, int row) {
  if (p.heads_per_unit == 1) {
    return {unit, row};
  }
  const int of_unit = row / p.query_length;
  return {unit * p.heads_per_unit + of_unit, row - of_unit * p.query_length};
}

/** The key head of a unit. */
__device__ __forceinline__ int key_head_of(const Params& p, int unit) {
  return p.heads_per_unit > 1 ? unit : unit / (p.query_heads / p.key_heads);
}

__device__ __forceinline__ int64_t lse_index(const Params& p, const SequencePlace& place, int batch, int head,
                                             int query) {
  return batch * p.lse_batch + head * p.lse_head + place.query_first + query;
}

/** Element 0 of a row of q, dO or the output. */
__device__ __forceinline__ int64_t query_element(const RowStrides& strides, const SequencePlace& place, int batch,
                                                 int head, int query) {
  return strides.base + batch * strides.batch + static_cast<int64_t>(place.query_first + query) * strides.row +
         head * strides.head;
}

/** Element 0 of a row of k or v; `key` counts from the sequence's first. */
__device__ __forceinline__ int64_t key_element(const Params& p, const RowStrides& strides, const SequencePlace& place,
                                               int head, int key) {
  int row = key + place.key_first, batch = place.key_batch;
  if (p.page_size > 0) {
    const int page = p.block_table[static_cast<int64_t>(batch) * p.pages_per_sequence + row / p.page_size];
    batch = max(0, min(page, p.key_batches - 1));
    row %= p.page_size;
  }
  return strides.base + batch * strides.batch + row * strides.row + head * strides.head;
}

/**
 * A sink in base 2, −∞ where there is none. `factor` is 2 to what rounding took from it: without that, the LSE of rows
 * that see little beside a sink of hundreds is off by 2^-24 of it, and so is every term of the sink's gradient.
 */
__device__ __forceinline__ float sink_score(const float* sinks, int head, float& factor) {
  constexpr float LOG2_E_REST = 1.925963033500e-8f, LN_2 = 0.693147180559945309f;
  const float sink = sinks ? sinks[head] : -INFINITE, score = sink * LOG2_E;
  factor = fmaf(fmaf(sink, LOG2_E, -score) + sink * LOG2_E_REST, LN_2, 1.f);
  return score;
}

/** LSE in natural units and what rounding took from it, from the largest in base 2 and the denominator. */
__device__ __forceinline__ void store_lse(const Params& p, int64_t at, double largest, double denominator) {
  const double exact =
      denominator == 0 ? -static_cast<double>(INFINITE) : (largest + log2(denominator)) * 0.69314718055994530942;
  const float rounded = static_cast<float>(exact);
  p.lse[at] = rounded;
  p.lse_tail[at] = isfinite(rounded) ? static_cast<float>(exact - rounded) : 0.f;
}

__device__ __forceinline__ uint32_t largest_of_warp(uint32_t x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
  }
  return x;
}

}  // namespace cuda
}  // namespace flash_attention
