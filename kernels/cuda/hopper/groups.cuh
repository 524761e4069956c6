// How a block of any of the kernels is divided: one thread of the first group of warps feeds tiles, the other groups
// consume them, and barriers in shared memory say what is full and what is empty.
#pragma once

#include "pipeline.h"
#include "plans.h"
#include "tile_queue.cuh"

namespace flash_attention {
namespace hopper {

/** Barriers of a block whose queries stay while keys and values come by, by their addresses. */
template <typename Plan>
struct QueryBarriers {
  uint32_t at;
  __device__ __forceinline__ uint32_t queries_full() const { return at; }
  __device__ __forceinline__ uint32_t queries_empty() const { return at + 8; }
  __device__ __forceinline__ uint32_t keys_full(int stage) const { return at + 16 + stage * 32; }
  __device__ __forceinline__ uint32_t keys_empty(int stage) const { return at + 24 + stage * 32; }
  __device__ __forceinline__ uint32_t values_full(int stage) const { return at + 32 + stage * 32; }
  __device__ __forceinline__ uint32_t values_empty(int stage) const { return at + 40 + stage * 32; }

  __device__ __forceinline__ void start(int consumer_warps) const {
    start_barrier(queries_full(), 1);
    start_barrier(queries_empty(), consumer_warps);
    for (int stage = 0; stage < Plan::BUFFERS; stage++) {
      start_barrier(keys_full(stage), 1);
      start_barrier(keys_empty(stage), consumer_warps);
      start_barrier(values_full(stage), 1);
      start_barrier(values_empty(stage), consumer_warps);
    }
  }
};

/** Starts the barriers, then runs `feed()` in one thread and `consume(group)` in all threads of each other group. */
template <typename Plan, typename Barriers, typename Feed, typename Consume>
__device__ __forceinline__ void run_groups(uint32_t shared, const Feed& feed, const Consume& consume) {
  if (threadIdx.x == 0) {
    constexpr int WARPS = Plan::CONSUMERS * GROUP_THREADS / 32;
    Barriers{shared + Plan::BARRIERS_AT}.start(WARPS);
    TileQueue(shared + Plan::QUEUE_AT).start(WARPS);
    publish_barriers();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / GROUP_THREADS;
  if (group == 0) {
    give_registers<RegisterShare<Plan::CONSUMERS>::PRODUCER>();
    if (threadIdx.x == 0) {
      feed();
    }
  } else {
    take_registers<RegisterShare<Plan::CONSUMERS>::CONSUMER>();
    consume(group - 1);
  }
}

}  // namespace hopper
}  // namespace flash_attention
