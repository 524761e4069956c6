// The online softmax (Milakov and Gimelshein, 2018; Dao, FlashAttention, 2022), one row to a lane.
#pragma once

#include "philox.h"
#include "scores.h"

namespace flash_attention {
namespace {

/** What is known of rows so far. `denominator` is that of weights exp(score − largest); 0 is a row that saw no key. */
struct RunningSoftmax {
  float* largest;
  double* denominator;
  /** By what the tile that came last makes what was before it smaller. */
  float* rescale;
};

inline RunningSoftmax take_softmax(Scratch& scratch, int count) {
  return {scratch.take<float>(count), scratch.take<double>(count), scratch.take<float>(count)};
}

/** A sink is a logit that a row has before any key; −∞ is none. */
inline void begin_softmax(RunningSoftmax& state, const Lanes& lanes, const float* sinks) {
  for (int lane = 0; lane < lanes.count; lane++) {
    const float sink = sinks ? sinks[lanes.head[lane]] : -INFINITE;
    state.largest[lane] = sink;
    state.denominator[lane] = sink == -INFINITE ? 0 : 1;
  }
}

/** Hides what a vector of rows does not see, and gives the largest of each row's products. */
template <bool PARTIAL>
inline Vector largest_products(const ScoreTile& tile, const Lanes& lanes, int column) {
  const Integers begin = load(lanes.begin + column), end = load(lanes.end + column);
  Vector largest[4];
  for (int u = 0; u < 4; u++) {
    largest[u] = splat(-INFINITE);
  }
  for (int n = tile.first; n < tile.last; n += 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
      float* at = tile.scores + (n + u) * tile.stride + column;
      Vector product = load(at);
      if (PARTIAL) {
        const Integers key = splat(static_cast<int32_t>(tile.key + n + u));
        product = (key >= begin) & (key < end) ? product : splat(-INFINITE);
        store(at, product);
      }
      largest[u] = larger(largest[u], product);
    }
  }
  return larger(larger(largest[0], largest[1]), larger(largest[2], largest[3]));
}

/** Products become weights exp(product·scale − base), in place. Gives the sum of each row's, before dropout. */
template <bool DROPOUT>
inline Vector weigh_products(const ScoreTile& tile, const Lanes& lanes, int column, float scale, Vector base,
                             const Dropout& dropout, int64_t batch) {
  Vector sums[4] = {};
  for (int n = tile.first; n < tile.last; n += 4) {
    Vector kept[4];
    if (DROPOUT) {
      dropout.factors(batch, lanes.head + column, lanes.query + column, (tile.key + n) / 4, kept);
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
      float* at = tile.scores + (n + u) * tile.stride + column;
      Vector weight = exponential(load(at) * scale - base);
      sums[u] += weight;
      if (DROPOUT) {
        weight *= kept[u];
      }
      store(at, weight);
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/**
 * Scores, which are the tile's products times `scale` (above 0), become weights, in place, and the rows' state moves
 * on. A NaN score gives a weight of NaN and so reaches its row; hidden pairs weigh 0.
 */
inline void weigh_scores(const ScoreTile& tile, const Lanes& lanes, float scale, const Dropout& dropout, int64_t batch,
                         RunningSoftmax& state) {
  const bool partial = is_partial(tile, lanes);
  for (int column = 0; column < lanes.count; column += LANES) {
    const Vector here =
        (partial ? largest_products<true>(tile, lanes, column) : largest_products<false>(tile, lanes, column)) * scale;
    const Vector before = load(state.largest + column);
    const Vector now = larger(before, here);
    const Vector base = now == splat(-INFINITE) ? splat(0.f) : now;
    Vector rescale = exponential(before - base);
    rescale = here == splat(-INFINITE) ? splat(1.f) : rescale;
    const Vector sums = dropout.active ? weigh_products<true>(tile, lanes, column, scale, base, dropout, batch)
                                       : weigh_products<false>(tile, lanes, column, scale, base, dropout, batch);
    store(state.largest + column, now);
    store(state.rescale + column, rescale);
    float sum[LANES];
    store(sum, sums);
    for (int lane = 0; lane < LANES; lane++) {
      double& denominator = state.denominator[column + lane];
      denominator = denominator * state.rescale[column + lane] + sum[lane];
    }
  }
}

/** The LSE of a row and what rounding took from it. */
inline void store_lse(const ForwardOutputs& outputs, int64_t at, float largest, double denominator) {
  const double exact = denominator == 0 ? -INFINITE : largest + __builtin_log(denominator);
  const float rounded = static_cast<float>(exact);
  outputs.lse[at] = rounded;
  outputs.lse_tail[at] = __builtin_isfinite(rounded) ? static_cast<float>(exact - rounded) : 0.f;
}

}  // namespace
}  // namespace flash_attention
