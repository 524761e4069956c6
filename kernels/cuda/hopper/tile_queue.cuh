// Which tile a block works on next. Blocks take tiles from a counter as they get free: under causal a fixed share
// leaves the busiest of 132 multiprocessors 16% to 23% more than the mean at N = 4096 and 16384, the counter 3% to 5%
// (counted, see benchmarks/NOTES.md). The feeding thread draws and tells the consumers through two places in shared
// memory.
#pragma once

#include "call.cuh"
#include "pipeline.h"
#include "plans.h"

namespace flash_attention {
namespace hopper {

class TileQueue {
 public:
  /** Of each place a full and an empty barrier and the index. */
  static constexpr int PLACES = 2, PLACE_BYTES = 24, BYTES = PLACES * PLACE_BYTES;
  static_assert(BYTES == QUEUE_BYTES, "counted in plans.h");

  __device__ __forceinline__ explicit TileQueue(uint32_t address) : at_(address) {}

  __device__ __forceinline__ void start(int consumer_warps) const {
    for (int place = 0; place < PLACES; place++) {
      start_barrier(at_ + place * PLACE_BYTES, 1);
      start_barrier(at_ + place * PLACE_BYTES + 8, consumer_warps);
    }
  }

  /** The feeding thread's next tile, which the consumers get too; head −1 after the last. */
  __device__ __forceinline__ WorkTile draw(const HopperParams& params) {
    const int index = is_first_ ? static_cast<int>(blockIdx.x)
                                : static_cast<int>(gridDim.x + atomicAdd(params.next_tile, 1u));
    is_first_ = false;
    const uint32_t place = at_ + ring_.stage() * PLACE_BYTES;
    wait(place + 8, ring_.phase() ^ 1);
    store_word(place + 16, index);
    arrive(place);
    ring_.advance();
    return find(params, index);
  }

  /** The same tile, for a consumer. */
  __device__ __forceinline__ WorkTile take(const HopperParams& params) {
    const uint32_t place = at_ + ring_.stage() * PLACE_BYTES;
    wait(place, ring_.phase());
    const int index = load_word(place + 16);
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      arrive(place + 8);
    }
    ring_.advance();
    return find(params, index);
  }

 private:
  __device__ __forceinline__ static WorkTile find(const HopperParams& params, int index) {
    if (index >= params.order.heads * params.order.tiles) {
      return {-1, 0};
    }
    return work_tile(params.order, index);
  }

  uint32_t at_;
  Ring<PLACES> ring_;
  bool is_first_ = true;
};

}  // namespace hopper
}  // namespace flash_attention
