// Philox4x32-10 (Salmon et al., SC 2011) as src/op/philox.ts has it, one query to a lane.
#pragma once

#include "lanes.h"

namespace flash_attention {
namespace {

typedef uint64_t WidePairs __attribute__((vector_size(2 * FLASH_VECTOR_BYTES)));

struct Halves {
  Words low, high;
};

inline Halves multiply_wide(Words a, uint32_t b) {
  const WidePairs product = __builtin_convertvector(a, WidePairs) * static_cast<uint64_t>(b);
  return {__builtin_convertvector(product, Words), __builtin_convertvector(product >> 32, Words)};
}

/** Draws for the softmax weights of one call: which are dropped, and by what the rest grow. */
struct Dropout {
  bool active;
  uint32_t threshold, seed_low, seed_high, first_batch, first_head;
  float kept_scale;

  explicit Dropout(const Problem& problem) {
    active = problem.dropout_p > 0;
    const double most = 4294967295.0;
    const double share = problem.dropout_p * 4294967296.0 + 0.5;
    threshold = static_cast<uint32_t>(share < most ? share : most);
    seed_low = problem.seed_low;
    seed_high = problem.seed_high;
    first_batch = static_cast<uint32_t>(problem.first_batch);
    first_head = static_cast<uint32_t>(problem.first_query_head);
    kept_scale = static_cast<float>(1 / (1 - problem.dropout_p));
  }

  /** Factors, each 0 or 1/(1−p), of keys 4·block … 4·block + 3 for a vector of queries and their heads. */
  void factors(int64_t batch, const int32_t* head, const int32_t* query, int64_t block, Vector result[4]) const {
    Words c0 = static_cast<uint32_t>(block) - Words{};
    Words c1 = reinterpret_cast<Words>(load(query));
    Words c2 = reinterpret_cast<Words>(load(head)) + first_head;
    Words c3 = static_cast<uint32_t>(batch) + first_batch - Words{};
    uint32_t k0 = seed_low, k1 = seed_high;
    for (int round = 0; round < 10; round++) {
      const Halves first = multiply_wide(c0, 0xD2511F53u), second = multiply_wide(c2, 0xCD9E8D57u);
      c0 = second.high ^ c1 ^ k0;
      c1 = second.low;
      c2 = first.high ^ c3 ^ k1;
      c3 = first.low;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const Words words[4] = {c0, c1, c2, c3};
    for (int n = 0; n < 4; n++) {
      result[n] = words[n] < threshold - Words{} ? splat(0.f) : splat(kept_scale);
    }
  }
};

}  // namespace
}  // namespace flash_attention
