// Forward kernels that are not shipped, to be timed against those that are: (name, plan).
#pragma once

#include "../../../kernels/cuda/hopper/forward.cuh"

namespace flash_attention {
namespace hopper {
using Try64Polynomial4 = ForwardPlan<64, 3, 128, 2, 4>;
using Try64Polynomial8 = ForwardPlan<64, 3, 128, 2, 8>;
using Try64Keys96 = ForwardPlan<64, 3, 96, 3>;
using Try64Groups2 = ForwardPlan<64, 2, 128, 3>;
using Try64Groups2Keys192 = ForwardPlan<64, 2, 192, 2>;
using Try64Groups2Keys176Polynomial4 = ForwardPlan<64, 2, 176, 2, 4>;
using Try128Keys176 = ForwardPlan<128, 2, 176, 2>;
using Try128Keys160 = ForwardPlan<128, 2, 160, 2>;
using Try128Polynomial8 = ForwardPlan<128, 2, 128, 2, 8>;
using Try128Groups3 = ForwardPlan<128, 3, 80, 3>;
}  // namespace hopper
}  // namespace flash_attention

#define FLASH_CANDIDATES(X)                                          \
  X(try_64_polynomial_4, Try64Polynomial4)                           \
  X(try_64_polynomial_8, Try64Polynomial8)                           \
  X(try_64_keys_96, Try64Keys96)                                     \
  X(try_64_groups_2, Try64Groups2)                                   \
  X(try_64_groups_2_keys_192, Try64Groups2Keys192)                   \
  X(try_64_groups_2_keys_176_polynomial_4, Try64Groups2Keys176Polynomial4) \
  X(try_128_keys_176, Try128Keys176)                                 \
  X(try_128_keys_160, Try128Keys160)                                 \
  X(try_128_polynomial_8, Try128Polynomial8)                         \
  X(try_128_groups_3, Try128Groups3)

#define FLASH_CANDIDATE(NAME, PLAN)                                                              \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::PLAN::THREADS, 1)        \
      NAME(const __grid_constant__ flash_attention::hopper::HopperParams params) {               \
    flash_attention::hopper::forward<flash_attention::hopper::Bfloat16, flash_attention::hopper::PLAN>(params); \
  }
FLASH_CANDIDATES(FLASH_CANDIDATE)
