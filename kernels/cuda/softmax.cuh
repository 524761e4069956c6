// The online softmax (Milakov and Gimelshein, 2018; Dao, FlashAttention-2, 2023) in base 2. A row of an accumulator
// lies in a quad of lanes; `largest` is of the whole row, `denominator` of the lane's own columns until the end.
// `largest` is rounded up to an integer: rescaling is then exact, mostly by 1, and no rounding tells weights of early
// tiles from late.
#pragma once

#include "mask.cuh"
#include "mma.cuh"

namespace flash_attention {
namespace cuda {

template <int M>
struct RunningSoftmax {
  float largest[M][2], denominator[M][2];
};

__device__ __forceinline__ float largest_of_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float sum_of_quad(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/** A sink is a logit that a row has before any key; `first`: of the quad's lanes one counts it. */
template <int WEIGHT_EXPONENT>
__device__ __forceinline__ void begin_softmax(float& largest, float& denominator, const float* sinks, int head,
                                              bool first) {
  const float sink = sinks ? sinks[head] * LOG2_E : -INFINITE;
  largest = ceilf(sink);
  denominator = first && sink != -INFINITE ? exp2_fast(sink - largest + WEIGHT_EXPONENT) : 0.f;
}

/**
 * Scores/scale → weights 2^(score·scale − largest + WEIGHT_EXPONENT), in place; `scale` > 0. Gives by what each row's
 * earlier sums shrink. Hidden pairs are −∞ and weigh 0; NaN and +∞ make their rows NaN.
 */
template <int WEIGHT_EXPONENT, int M, int N>
__device__ __forceinline__ void weigh_scores(float (&scores)[M][N][4], float scale, RunningSoftmax<M>& state,
                                             float (&rescale)[M][2]) {
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float here = -INFINITE;
#pragma unroll
      for (int n = 0; n < N; n++) {
        here = fmaxf(here, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
      }
      const float before = state.largest[m][half];
      const float now = fmaxf(before, ceilf(largest_of_quad(here) * scale));
      const float base = now == -INFINITE ? 0.f : now;
      rescale[m][half] = now == before ? 1.f : exp2_fast(before - base);
      const float minus = static_cast<float>(WEIGHT_EXPONENT) - base;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], scale, minus));
          sum += scores[m][n][i];
        }
      }
      state.largest[m][half] = now;
      state.denominator[m][half] = state.denominator[m][half] * rescale[m][half] + sum;
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
