// Powers of two that keep dS and P inside float16 in the backward pass, and what they cost bfloat16: nothing.
#pragma once

#include <type_traits>

#include "call.cuh"

namespace flash_attention {
namespace hopper {

/**
 * dS is held as P∘(dP·product − D·delta) of the 16-bit operands' products dP, P as P·weight. What they are summed to is
 * multiplied by `d_score` and `d_output` at the end. `score` turns products q·k into exponents of 2.
 */
struct GradientScales {
  float score, product, delta, weight;
};

template <typename T>
__device__ __forceinline__ GradientScales plain_scales(const cuda::Params& call) {
  return {call.softmax_scale * LOG2_E, 1.f, 1.f, 1.f};
}

/** The exponent of a float ≥ 0, not less than −100: 2^(exponent + 1) is above it. */
__device__ __forceinline__ int exponent_of(float x) {
  return larger(-100, static_cast<int>(__float_as_uint(x) >> 23) - 127);
}
__device__ __forceinline__ float exact_power(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(larger(1, smaller(254, exponent + 127))) << 23);
}

/** dS of true magnitude below 2^exponent comes below 2^13, and the difference of two such fits. */
constexpr int LARGEST_D_SCORE = 13;

/** The exponent that |dP| = |dO·v| stays under, by Cauchy and Schwarz. */
__device__ __forceinline__ int product_exponent(const cuda::Params& call, const HeadPlace& place, int head) {
  const float v = __uint_as_float(call.statistics.v[place.batch * call.key_heads + place.key_head].square_sum);
  const float d = __uint_as_float(call.statistics.d_output[place.batch * call.query_heads + head].square_sum);
  return exponent_of(sqrtf(v) * sqrtf(d)) + 1;
}

}  // namespace hopper
}  // namespace flash_attention
