// Bulk copies: boxes of tensors into shared memory, and rows of floats, both reporting to an mbarrier.
#pragma once

#include "barriers.cuh"
#include "tensor_map.h"

namespace flash_attention {
namespace hopper {

#ifndef FLASH_EMULATOR
__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/** The box at (column, row, head) of [heads][rows][columns]; what lies outside of the tensor becomes 0 and counts. */
__device__ __forceinline__ void load_box(uint32_t to, const TensorMap* map, uint32_t barrier, int column, int row,
                                         int head) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(head)
      : "memory");
}

/** `bytes` (a multiple of 16, both ends aligned to 16) from global memory. */
__device__ __forceinline__ void load_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
               : "memory");
}

/** Adds floats of shared memory to those of global memory, in any order with what others add; 16 bytes as above. */
__device__ __forceinline__ void add_floats(float* to, uint32_t from, uint32_t bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                   __cvta_generic_to_global(to)),
               "r"(from), "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/** Until shared memory is free of what this thread has had added. */
__device__ __forceinline__ void await_reading() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/** Until all that this thread has had added is there. */
__device__ __forceinline__ void await_adding() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

#endif

/** A tile of ROWS × COLUMNS, panel after panel. */
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void load_tile(uint32_t to, const TensorMap* map, uint32_t barrier, int row, int head) {
#pragma unroll
  for (int column = 0; column < COLUMNS; column += PANEL_COLUMNS) {
    load_box(to + column / PANEL_COLUMNS * ROWS * PANEL_ROW_BYTES, map, barrier, column, row, head);
  }
}

}  // namespace hopper
}  // namespace flash_attention
