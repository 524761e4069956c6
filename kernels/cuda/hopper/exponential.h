// 2^x without the special units, the same arithmetic on host and device.
#pragma once

#include <cmath>

#include "layouts.h"

namespace flash_attention {
namespace hopper {

FLASH_SHARED_CODE uint32_t float_bits(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

FLASH_SHARED_CODE float float_of(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

/**
 * For x up to 127; what is below −125 gives 2^−125. Adding 1.5·2^23 rounds to the nearest whole number, the rest goes
 * by a polynomial fitted for the least relative error, 2.8e-6.
 */
FLASH_SHARED_CODE float polynomial_exponential(float x) {
  constexpr float MAGIC = 12582912.f;
  x = fmaxf(x, -125.f);
  const float whole = x + MAGIC;
  const float rest = x - (whole - MAGIC);
  float power = fmaf(0.00958285304f, rest, 0.055906425f);
  power = fmaf(power, rest, 0.240240986f);
  power = fmaf(power, rest, 0.693124193f);
  power = fmaf(power, rest, 1.f);
  return float_of(float_bits(power) + (float_bits(whole) << 23));
}

}  // namespace hopper
}  // namespace flash_attention
