// Powers of two that keep P and dS inside float16 in the backward pass, and what they cost bfloat16: nothing.
#pragma once

#include <type_traits>

#include "call.cuh"

namespace flash_attention {
namespace hopper {

/**
 * Weights are held as 2^(q·k·score − LSE), the LSE being less WEIGHT_EXPONENT_F16 with float16 (params.h), dS as
 * weights∘(dO·v·product − D·delta). What they are summed to is multiplied by the factors at the end.
 */
struct GradientScales {
  float score, product, delta;
  float d_query, d_key, d_value;
};

/**
 * Of a key head and the query heads that read it. With float16 |dO·v − D| is below √(Σv²·ΣdO²) + |D|, by Cauchy and
 * Schwarz, which comes into [2^14, 2^15), and weights are at most 2^14, so that N of them that are small stay normal.
 */
template <typename T>
__device__ __forceinline__ GradientScales gradient_scales(const cuda::Params& call, const HeadPlace& place) {
  GradientScales scales = {call.softmax_scale * LOG2_E, 1.f, 1.f, call.softmax_scale, call.softmax_scale, 1.f};
  if constexpr (std::is_same<T, Float16>::value) {
    constexpr int SHIFT = cuda::WEIGHT_EXPONENT_F16;
    const cuda::GroupState& state = group_of(call, place);
    const int q = cuda::exponent_for(state.q), k = cuda::exponent_for(state.k), v = cuda::exponent_for(state.v);
    const int d = cuda::exponent_for(state.d_output);
    const float bound = sqrtf(__uint_as_float(state.v_squares)) * sqrtf(__uint_as_float(state.d_output_squares)) +
        __uint_as_float(state.delta);
    const int d_score = cuda::exponent_for(__float_as_uint(bound));
    scales.score *= cuda::power_of_two(-q - k);
    scales.product = cuda::power_of_two(d_score - SHIFT - v - d);
    scales.delta = cuda::power_of_two(d_score - SHIFT);
    scales.d_query *= cuda::power_of_two(-d_score - k);
    scales.d_key *= cuda::power_of_two(-d_score - q);
    scales.d_value = cuda::power_of_two(-SHIFT - d);
  }
  return scales;
}

}  // namespace hopper
}  // namespace flash_attention
