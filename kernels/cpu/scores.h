// From products q·k to the scores that the softmax takes: scale, softcap, ALiBi, bias, and −∞ for the hidden pairs.
#pragma once

#include "lanes.h"

namespace flash_attention {
namespace {

/** Scores of keys against the rows of a group: key n of the tile and lane r at [n·stride + r]. */
struct ScoreTile {
  float* scores;
  int stride;
  /** The sequence's key of row 0, and the rows that are in use: from the first to before the last. */
  int64_t key;
  int first, last;
};

/**
 * What mask and bias say of each pair: −∞ where it is hidden, else what is added. Gives whether any pair of the tile is
 * visible as far as they tell. With the same row of mask and bias for all lanes a value is read once.
 */
inline bool gather_bias(const ScoreTile& tile, const Lanes& lanes, const Problem& problem, const Tensors& tensors,
                        float* into) {
  bool any = false;
  const int64_t mask_step = problem.mask.key, bias_step = problem.bias.key;
  const int last = static_cast<int>(smaller_of(tile.last, lanes.any_end - tile.key));
  bool is_uniform = true;
  for (int lane = 1; lane < lanes.rows; lane++) {
    is_uniform = is_uniform && (!tensors.mask || lanes.mask_at[lane] == lanes.mask_at[0]) &&
        (!tensors.bias || lanes.bias_at[lane] == lanes.bias_at[0]);
  }
  const int different = is_uniform ? 1 : lanes.rows;
  for (int lane = 0; lane < different; lane++) {
    const uint8_t* mask = tensors.mask ? tensors.mask + lanes.mask_at[lane] + tile.key * mask_step : nullptr;
    const float* bias = tensors.bias ? tensors.bias + lanes.bias_at[lane] + tile.key * bias_step : nullptr;
    for (int n = tile.first; n < last; n++) {
      const float value = mask && !mask[n * mask_step] ? -INFINITE : bias ? bias[n * bias_step] : 0.f;
      any = any || value != -INFINITE;
      into[n * tile.stride + lane] = value;
    }
  }
  // What is left: lanes that repeat one, and keys past the last that any row sees.
  for (int n = tile.first; n < tile.last; n++) {
    for (int lane = n < last ? different : 0; lane < lanes.count; lane++) {
      into[n * tile.stride + lane] = n < last ? into[n * tile.stride + different - 1] : -INFINITE;
    }
  }
  return any;
}

/**
 * Scale, softcap, ALiBi and what {@link gather_bias} gave, in place.
 * @param slopes ∂(capped score)/∂(scaled product) of every pair, written where given and there is a softcap
 */
inline void finish_scores(const ScoreTile& tile, const Lanes& lanes, const Problem& problem, const Tensors& tensors,
                          const float* bias, float* slopes) {
  const float scale = static_cast<float>(problem.softmax_scale);
  const float cap = static_cast<float>(problem.softcap);
  for (int column = 0; column < lanes.count; column += LANES) {
    const Vector position = load(lanes.position + column), slope = load(lanes.slope + column);
    for (int n = tile.first; n < tile.last; n++) {
      const int at = n * tile.stride + column;
      Vector score = load(tile.scores + at) * scale;
      if (cap > 0) {
        const Vector capped = hyperbolic_tangent(score / cap);
        score = capped * cap;
        if (slopes) {
          store(slopes + at, 1.f - capped * capped);
        }
      }
      if (tensors.alibi_slopes) {
        score -= slope * absolute(position - static_cast<float>(tile.key + n));
      }
      if (bias) {
        const Vector more = load(bias + at);
        score = more == splat(-INFINITE) ? more : score + more;
      }
      store(tile.scores + at, score);
    }
  }
}

/** Whether scores need more than a scale above 0, which −∞ of hidden pairs survives. */
inline bool has_finish(const Problem& problem, const Tensors& tensors) {
  return !(problem.softmax_scale > 0) || problem.softcap > 0 || tensors.alibi_slopes || tensors.mask || tensors.bias;
}

/** Whether some row of the tile lies outside what some lane sees. */
inline bool is_partial(const ScoreTile& tile, const Lanes& lanes) {
  return tile.key + tile.first < lanes.all_begin || tile.key + tile.last > lanes.all_end;
}

/** The part of a tile of `count` keys that some lane sees, widened to whole steps of four keys; empty if none. */
inline ScoreTile visible_part(float* scores, int stride, int64_t key, int64_t count, const Lanes& lanes) {
  ScoreTile tile{scores, stride, key, 0, 0};
  const int64_t first = larger_of(0, lanes.any_begin - key), last = smaller_of(count, lanes.any_end - key);
  if (first < last) {
    tile.first = static_cast<int>(first / 4 * 4);
    tile.last = static_cast<int>(rounded_up(last, 4));
  }
  return tile;
}

}  // namespace
}  // namespace flash_attention
