// The forward kernels: flash_forward_<name>.
#include "forward.cuh"
#include "instances.h"

using namespace flash_attention::cuda;

#define FLASH_FORWARD(name, GENERAL, Kind, DP, WARPS, M, KEYS, BLOCKS)          \
  using Forward_##name = ForwardTile<Kind, DP, WARPS, M, KEYS, BLOCKS>;         \
  static_assert(Forward_##name::SHARED_BYTES <= 99 * 1024, "shared memory");    \
  extern "C" __global__ void __launch_bounds__(Forward_##name::THREADS, BLOCKS) \
      flash_forward_##name(const __grid_constant__ Params p) {                  \
    forward_tile<Forward_##name, GENERAL>(p);                                   \
  }
FLASH_FORWARD_INSTANCES(FLASH_FORWARD)
