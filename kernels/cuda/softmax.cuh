// The online softmax (Milakov and Gimelshein, 2018; Dao, FlashAttention-2, 2023) in base 2. A row of an accumulator
// lies in a quad of lanes; `largest` is of the whole row, `denominator` of the lane's own columns until the end.
// `largest` grows by whole numbers: rescaling is then exact, mostly by 1, and no rounding tells weights of early tiles
// from late. With split operands it begins as it is: the weight of a row that sees one key is then a power of two.
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

/** 2^x · 2^WEIGHT_EXPONENT, of x that has FOLDED_EXPONENT in it. */
template <class Kind>
__device__ __forceinline__ float weight_of(float x) {
  constexpr int LEFT = Kind::WEIGHT_EXPONENT - Kind::FOLDED_EXPONENT;
  return LEFT > 0 ? exp2_fast(x) * static_cast<float>(1 << LEFT) : exp2_fast(x);
}

/** `largest` where it was `before` and a score of `most` comes. */
template <class Kind>
__device__ __forceinline__ float next_largest(float before, float most) {
  if constexpr (Kind::PIECES == 2) {
    return before == -INFINITE ? most : most > before ? before + ceilf(most - before) : before;
  }
  return fmaxf(before, ceilf(most));
}

/** A sink is a logit that a row has before any key; `first`: of the quad's lanes one counts it. */
template <class Kind>
__device__ __forceinline__ void begin_softmax(float& largest, float& denominator, const float* sinks, int head,
                                              bool first) {
  float factor;
  const float sink = sink_score(sinks, head, factor);
  largest = next_largest<Kind>(-INFINITE, sink);
  denominator = first && sink != -INFINITE ? weight_of<Kind>(sink - largest + Kind::FOLDED_EXPONENT) * factor : 0.f;
}

/**
 * Scores/scale → weights 2^(score·scale − largest + WEIGHT_EXPONENT), in place; `scale` > 0. Gives by what each row's
 * earlier sums shrink. Hidden pairs are −∞ and weigh 0; NaN and +∞ make their rows NaN.
 */
template <class Kind, int M, int N>
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
      const float now = next_largest<Kind>(before, largest_of_quad(here) * scale);
      const float base = now == -INFINITE ? 0.f : now;
      rescale[m][half] = now == before ? 1.f : exp2_fast(before - base);
      const float minus = static_cast<float>(Kind::FOLDED_EXPONENT) - base;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          scores[m][n][i] = weight_of<Kind>(fmaf(scores[m][n][i], scale, minus));
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
