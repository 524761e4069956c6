// Powers of two that bring operands into the range of f16, and what they make of products.
#pragma once

#include "params.h"

namespace flash_attention {
namespace cuda {

/** Weights are at most 1; times this they use the range of f16 without reaching its end. */
constexpr int WEIGHT_EXPONENT_F16 = 14;

/** e so that 2^e times the magnitude (bits of a float) lies in [2^14, 2^15); 2^e and 2^−e stay normal floats. */
FLASH_BOTH int exponent_for(uint32_t magnitude) {
  if (magnitude == 0) {
    return 0;
  }
  const int exponent = 14 - (static_cast<int>(magnitude >> 23) - 127);
  return exponent > 124 ? 124 : exponent < -113 ? -113 : exponent;
}

/** 2^exponent, the exponent brought into the range of normal floats. */
FLASH_BOTH float power_of_two(int exponent) {
  const int bounded = exponent > 127 ? 127 : exponent < -126 ? -126 : exponent;
  const uint32_t bits = static_cast<uint32_t>(bounded + 127) << 23;
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

}  // namespace cuda
}  // namespace flash_attention
