// Every backward kernel of sm_90a that is built.
#include "key_gradient.cuh"
#include "query_gradient.cuh"

using flash_attention::hopper::Bfloat16;
using flash_attention::hopper::Float16;
using flash_attention::hopper::HopperParams;

#define FLASH_BACKWARD(NAME, FUNCTION, TYPE, PLAN)                                                          \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::PLAN::THREADS, 1)                   \
      NAME(const __grid_constant__ HopperParams params) {                                                   \
    flash_attention::hopper::FUNCTION<TYPE, flash_attention::hopper::PLAN>(params);                         \
  }

FLASH_BACKWARD(hopper_key_gradient_bf16_64, key_gradient, Bfloat16, KeyGradient64)
FLASH_BACKWARD(hopper_key_gradient_bf16_128, key_gradient, Bfloat16, KeyGradient128)
FLASH_BACKWARD(hopper_key_gradient_f16_64, key_gradient, Float16, KeyGradient64)
FLASH_BACKWARD(hopper_key_gradient_f16_128, key_gradient, Float16, KeyGradient128)
FLASH_BACKWARD(hopper_added_gradient_bf16_64, key_gradient, Bfloat16, AddedGradient64)
FLASH_BACKWARD(hopper_added_gradient_bf16_128, key_gradient, Bfloat16, AddedGradient128)
FLASH_BACKWARD(hopper_added_gradient_f16_64, key_gradient, Float16, AddedGradient64)
FLASH_BACKWARD(hopper_added_gradient_f16_128, key_gradient, Float16, AddedGradient128)
FLASH_BACKWARD(hopper_query_gradient_bf16_64, query_gradient, Bfloat16, QueryGradient64)
FLASH_BACKWARD(hopper_query_gradient_bf16_128, query_gradient, Bfloat16, QueryGradient128)
FLASH_BACKWARD(hopper_query_gradient_f16_64, query_gradient, Float16, QueryGradient64)
FLASH_BACKWARD(hopper_query_gradient_f16_128, query_gradient, Float16, QueryGradient128)

#define FLASH_FINISH(NAME, TYPE, PLAN)                                                                               \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::FINISH_THREADS, 4)                           \
      NAME(const __grid_constant__ HopperParams params) {                                                            \
    flash_attention::hopper::finish_query_sums<TYPE, flash_attention::hopper::PLAN>(params);                         \
  }

FLASH_FINISH(hopper_query_sums_bf16_64, Bfloat16, AddedGradient64)
FLASH_FINISH(hopper_query_sums_bf16_128, Bfloat16, AddedGradient128)
FLASH_FINISH(hopper_query_sums_f16_64, Float16, AddedGradient64)
FLASH_FINISH(hopper_query_sums_f16_128, Float16, AddedGradient128)
