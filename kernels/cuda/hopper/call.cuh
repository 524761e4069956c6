// What the Hopper kernels are given, and what they read of it for one tile: where its rows lie and what they see.
#pragma once

#include "../scales.h"
#include "barriers.cuh"
#include "launch.h"
#include "wgmma.cuh"

namespace flash_attention {
namespace hopper {

constexpr float LOG2_E = cuda::LOG2_E;
constexpr float LN_2 = 0.693147180559945309f;
constexpr float INFINITE = __builtin_huge_valf();
constexpr int LARGEST_WINDOW = 1 << 30;

/** A head of a batch: what its queries see, and where its canonical rows start. */
struct HeadPlace {
  int batch, head, key_head;
  /** Batch of k and v, where their gradients go. */
  int key_batch;
  int query_first, key_first, query_rows;
  int query_start, key_start;
  Visibility sees;
};

/** The same number, which the compiler cannot know: what is found from it is found again, not kept in registers. */
__device__ __forceinline__ int forget(int x) {
#ifndef FLASH_EMULATOR
  asm volatile("" : "+r"(x));
#endif
  return x;
}

__device__ __forceinline__ HeadPlace place_head(const cuda::Params& call, int batch, int head) {
  const cuda::SequencePlace& from = call.places[batch];
  HeadPlace place;
  place.batch = batch;
  place.head = head;
  place.key_head = head / (call.query_heads / call.key_heads);
  place.key_batch = from.key_batch;
  place.query_first = from.query_first;
  place.key_first = from.key_first;
  place.query_rows = from.query_rows;
  place.query_start = static_cast<int>(call.query_place.start(batch, from.query_first));
  place.key_start = static_cast<int>(call.key_place.start(batch, from.key_first));
  place.sees.queries = from.queries;
  place.sees.keys = from.keys;
  place.sees.offset = call.bottom_right ? from.keys - from.queries : 0;
  place.sees.window_left = smaller(call.window_left, LARGEST_WINDOW);
  place.sees.window_right = smaller(call.window_right, LARGEST_WINDOW);
  return place;
}

/** The place of a work tile of query heads. */
__device__ __forceinline__ HeadPlace place_queries(const cuda::Params& call, const WorkTile& work) {
  const int head = forget(work.head);
  return place_head(call, head / call.query_heads, head % call.query_heads);
}

/** Of a work tile of key heads: with the first query head that reads it. */
__device__ __forceinline__ HeadPlace place_keys(const cuda::Params& call, const WorkTile& work) {
  const int head = forget(work.head);
  return place_head(call, head / call.key_heads, head % call.key_heads * (call.query_heads / call.key_heads));
}

/** What is known of a key head and the query heads that read it. */
__device__ __forceinline__ const cuda::GroupState& group_of(const cuda::Params& call, const HeadPlace& place) {
  return call.groups[place.batch * call.key_heads + place.key_head];
}

/** Sum and maximum over the four threads that share a row of accumulators. */
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}
__device__ __forceinline__ float row_largest(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

/**
 * Writes a thread's part of one of its rows: accumulators 4·i + 2·HALF and the next, times `factor`, or zeros. `to` is
 * the row's element 0; `size` the elements that it has.
 */
template <int HALF, int COUNT>
__device__ __forceinline__ void store_row(float* to, int size, const float (&sums)[COUNT], float factor, bool is_zero,
                                          bool by_pairs) {
  const int first = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < COUNT / 4; i++) {
    const int column = i * 8 + first;
    const float low = is_zero ? 0 : sums[i * 4 + HALF * 2] * factor;
    const float high = is_zero ? 0 : sums[i * 4 + HALF * 2 + 1] * factor;
    if (by_pairs) {
      if (column < size) {
        *reinterpret_cast<float2*>(to + column) = make_float2(low, high);
      }
    } else {
      if (column < size) {
        to[column] = low;
      }
      if (column + 1 < size) {
        to[column + 1] = high;
      }
    }
  }
}

/** Row 0 or 1 of them; no array is indexed by `row`. */
template <int COUNT>
__device__ __forceinline__ void store_row(int row, float* to, int size, const float (&sums)[COUNT], float factor,
                                          bool is_zero, bool by_pairs) {
  if (row == 0) {
    store_row<0>(to, size, sums, factor, is_zero, by_pairs);
  } else {
    store_row<1>(to, size, sums, factor, is_zero, by_pairs);
  }
}

/** Whether every row of the tensor can be written two floats at a time. */
__device__ __forceinline__ bool has_pairs(const float* data, const cuda::RowStrides& strides, int size) {
  return ((reinterpret_cast<uint64_t>(data) / 4 | strides.base | strides.batch | strides.row | strides.head | size) &
          1) == 0;
}

__device__ __forceinline__ int64_t row_index(const cuda::RowStrides& strides, int batch, int row, int head) {
  return strides.base + batch * strides.batch + row * strides.row + head * strides.head;
}

/** Dynamic shared memory from its first multiple of 1024 on, as the swizzle wants it. */
__device__ __forceinline__ uint32_t shared_start() {
  return (dynamic_memory() + SWIZZLE_BYTES - 1) & ~static_cast<uint32_t>(SWIZZLE_BYTES - 1);
}

}  // namespace hopper
}  // namespace flash_attention
