// Every forward kernel of sm_90a that is built.
#include "forward.cuh"

using flash_attention::hopper::Bfloat16;
using flash_attention::hopper::Float16;
using flash_attention::hopper::HopperParams;

#define FLASH_FORWARD(NAME, TYPE, PLAN)                                                                     \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::PLAN::THREADS, 1)                   \
      NAME(const __grid_constant__ HopperParams params) {                                                   \
    flash_attention::hopper::forward<TYPE, flash_attention::hopper::PLAN>(params);                          \
  }

FLASH_FORWARD(hopper_forward_bf16_64, Bfloat16, Forward64)
FLASH_FORWARD(hopper_forward_bf16_128, Bfloat16, Forward128)
FLASH_FORWARD(hopper_forward_bf16_256, Bfloat16, Forward256)
FLASH_FORWARD(hopper_forward_f16_64, Float16, Forward64)
FLASH_FORWARD(hopper_forward_f16_128, Float16, Forward128)
FLASH_FORWARD(hopper_forward_f16_256, Float16, Forward256)
