// What a call gave, against what it should have given, in words that help to find the fault.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "sanitizers/call_runs.h"

namespace flash_attention {

/** Where a result's rows are in it. */
inline Strides strides_of(const Problem& p, int64_t name) {
  switch (name) {
    case Q:
      return p.q;
    case K:
      return p.k;
    case V:
      return p.v;
    case OUTPUT:
      return p.output;
    case LSE:
    case LSE_TAIL:
      return {0, p.lse_batch, 1, p.lse_head};
    case BIAS:
      return {0, p.bias.batch, p.bias.query, p.bias.head};
  }
  return {};
}

/** An element by batch, head, row and place in it, of a tensor whose rows do not overlap. */
inline std::string place_of(const Problem& p, int64_t name, int64_t element) {
  const Strides strides = strides_of(p, name);
  struct Axis {
    char letter;
    int64_t stride, at;
  } axes[] = {{'b', strides.batch, 0}, {'h', strides.head, 0}, {'r', strides.row, 0}};
  Axis* order[] = {&axes[0], &axes[1], &axes[2]};
  std::sort(order, order + 3, [](const Axis* a, const Axis* b) { return a->stride > b->stride; });
  int64_t left = element - strides.base;
  for (Axis* axis : order) {
    if (axis->stride > 0) {
      axis->at = left / axis->stride;
      left %= axis->stride;
    }
  }
  std::string text;
  for (const Axis& axis : axes) {
    text += axis.letter + std::to_string(axis.at) + " ";
  }
  return text + std::to_string(left);
}

inline bool is_as_expected(const CallResult& result, double received, double expected) {
  return std::isfinite(expected)                ? std::fabs(received - expected) <= result.tolerance :
         result.specials == Specials::finite    ? !std::isfinite(received) :
         std::isnan(expected)                   ? std::isnan(received) :
                                                  received == expected;
}

/** Empty where a result is right; the rules are those of {@link compare}. */
inline std::string difference(const Problem& problem, bool is_backward, const CallResult& result,
                              const float* actual) {
  size_t wrong = 0, first = 0, worst = 0, not_finite = 0;
  double worst_by = -1;
  for (size_t i = 0; i < result.expected.size(); i++) {
    if (is_as_expected(result, actual[i], result.expected[i])) {
      continue;
    }
    first = wrong++ == 0 ? i : first;
    const double by = std::fabs(actual[i] - result.expected[i]);
    not_finite += !std::isfinite(actual[i]);
    if (by > worst_by) {
      worst_by = by;
      worst = i;
    }
  }
  if (wrong == 0) {
    return "";
  }
  char text[400];
  const auto at = [&](size_t i) {
    char of[160];
    std::snprintf(of, sizeof of, "[%zu: %s] got %.6g, expected %.6g", i, place_of(problem, result.name, i).c_str(),
                  actual[i], result.expected[i]);
    return std::string(of);
  };
  std::snprintf(text, sizeof text, "%s%s: %zu of %zu wrong (%zu not finite), allowed %.3g; first %s%s%s",
                is_backward ? "d_" : "", tensor_name(static_cast<int>(result.name)), wrong, result.expected.size(),
                not_finite, result.tolerance, at(first).c_str(), worst != first && worst_by > 0 ? "; worst " : "",
                worst != first && worst_by > 0 ? at(worst).c_str() : "");
  return text;
}

/** Empty, or all that is wrong with a run. */
inline std::string differences(const Call& call, const Run& made) {
  if (!made.error.empty()) {
    return made.error;
  }
  Description d;
  read_description(call.description.data(), call.description.size(), &d);
  std::string text;
  for (size_t n = 0; n < call.results.size(); n++) {
    const std::string one = difference(d.problem, d.kind == CallKind::backward, call.results[n],
                                       static_cast<const float*>(made.results[n].block->data));
    text += one.empty() ? "" : (text.empty() ? "" : " | ") + one;
  }
  return text;
}

/** A call's sizes and options, shortly. */
inline std::string shape_text(const Description& d) {
  const Problem& p = d.problem;
  char text[300];
  std::snprintf(text, sizeof text, "B%d N%dx%d H%d/%d D%d/%d w%d,%d%s%s%s%s%s%s%s%s%s", static_cast<int>(p.batch),
                static_cast<int>(p.query_length), static_cast<int>(p.key_length), static_cast<int>(p.query_heads),
                static_cast<int>(p.key_heads), static_cast<int>(p.head_size), static_cast<int>(p.value_size),
                static_cast<int>(p.window_left), static_cast<int>(p.window_right), p.packed_sequences ? " packed" : "",
                p.has_sequences ? " lengths" : "", p.page_size > 0 ? " pages" : "", p.softcap > 0 ? " softcap" : "",
                p.dropout_p > 0 ? " dropout" : "", d.has(MASK) ? " mask" : "", d.has(BIAS) ? " bias" : "",
                d.has(ALIBI_SLOPES) ? " alibi" : "", d.has(SINKS) ? " sinks" : "");
  return text;
}

/** Largest error as a share of what is allowed; 0 where nothing is. */
inline double worst_of(const Call& call, const Run& made) {
  double worst = 0;
  for (size_t n = 0; n < call.results.size() && n < made.results.size(); n++) {
    const auto* actual = static_cast<const float*>(made.results[n].block->data);
    const CallResult& result = call.results[n];
    for (size_t i = 0; i < result.expected.size(); i++) {
      if (std::isfinite(result.expected[i]) && result.tolerance > 0) {
        worst = std::max(worst, std::fabs(actual[i] - result.expected[i]) / result.tolerance);
      }
    }
  }
  return worst;
}

}  // namespace flash_attention
