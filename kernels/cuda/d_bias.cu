// The kernels for dBias: flash_d_bias_<kind>_<DP>.
#include "d_bias.cuh"
#include "instances.h"

using namespace flash_attention::cuda;

#define FLASH_BIAS(name, Kind, DP, WARPS, MOVING, COLUMNS)                                  \
  using Bias_##name = GradientTile<Kind, DP, WARPS, MOVING, 1, COLUMNS>;                    \
  static_assert(Bias_##name::SHARED_BYTES <= 98 * 1024, "shared memory, with the sums'");   \
  extern "C" __global__ void __launch_bounds__(Bias_##name::THREADS, 2)                     \
      flash_d_bias_##name(const __grid_constant__ Params p) {                               \
    d_bias_tile<Bias_##name>(p);                                                            \
  }
FLASH_BIAS_INSTANCES(FLASH_BIAS)
