// Kernels that are not shipped, to be timed against those that are: what they do, their plan and their name.
#pragma once

#include "problem.h"

namespace flash_attention {
namespace hopper {
template <int KEYS, int STAGES, int EVERY = 0, bool TURNS = true>
using Three64 = ForwardPlan<64, 3, KEYS, STAGES, EVERY, TURNS>;
template <int KEYS, int STAGES, int EVERY = 0, bool TURNS = true>
using Two64 = ForwardPlan<64, 2, KEYS, STAGES, EVERY, TURNS>;
template <int KEYS, int STAGES, int EVERY = 0, bool TURNS = true>
using Two128 = ForwardPlan<128, 2, KEYS, STAGES, EVERY, TURNS>;
template <int KEYS, int STAGES, int EVERY = 0, bool TURNS = true>
using Three128 = ForwardPlan<128, 3, KEYS, STAGES, EVERY, TURNS>;

/** Makes a plan with commas in its arguments one word for the macros below. */
#define FLASH_PLAN(...) __VA_ARGS__
}  // namespace hopper
}  // namespace flash_attention

// (what, pass, name, plan)
#define FLASH_CANDIDATES(X)                                                     \
  X(forward, forward, f64_3x128_free, FLASH_PLAN(Three64<128, 2, 0, false>))    \
  X(forward, forward, f64_3x128_stages3, FLASH_PLAN(Three64<128, 3>))           \
  X(forward, forward, f64_3x128_poly4, FLASH_PLAN(Three64<128, 2, 4>))          \
  X(forward, forward, f64_3x128_poly8, FLASH_PLAN(Three64<128, 2, 8>))          \
  X(forward, forward, f64_3x128_poly4_free, FLASH_PLAN(Three64<128, 2, 4, false>)) \
  X(forward, forward, f64_3x96, FLASH_PLAN(Three64<96, 3>))                     \
  X(forward, forward, f64_3x112, FLASH_PLAN(Three64<112, 3>))                   \
  X(forward, forward, f64_2x128, FLASH_PLAN(Two64<128, 3>))                     \
  X(forward, forward, f64_2x128_free, FLASH_PLAN(Two64<128, 3, 0, false>))      \
  X(forward, forward, f64_2x160, FLASH_PLAN(Two64<160, 2>))                     \
  X(forward, forward, f64_2x160_poly4, FLASH_PLAN(Two64<160, 2, 4>))            \
  X(forward, forward, f64_2x192, FLASH_PLAN(Two64<192, 2>))                     \
  X(forward, forward, f64_2x176_poly4, FLASH_PLAN(Two64<176, 2, 4>))            \
  X(forward, forward, f128_2x128_free, FLASH_PLAN(Two128<128, 2, 0, false>))    \
  X(forward, forward, f128_2x128_poly8, FLASH_PLAN(Two128<128, 2, 8>))          \
  X(forward, forward, f128_2x112, FLASH_PLAN(Two128<112, 3>))                   \
  X(forward, forward, f128_2x160, FLASH_PLAN(Two128<160, 2>))                   \
  X(forward, forward, f128_2x160_free, FLASH_PLAN(Two128<160, 2, 0, false>))    \
  X(forward, forward, f128_2x176, FLASH_PLAN(Two128<176, 2>))                   \
  X(forward, forward, f128_2x176_free, FLASH_PLAN(Two128<176, 2, 0, false>))    \
  X(forward, forward, f128_2x176_poly8, FLASH_PLAN(Two128<176, 2, 8>))          \
  X(forward, forward, f128_3x64, FLASH_PLAN(Three128<64, 3>))                   \
  X(forward, forward, f128_3x80, FLASH_PLAN(Three128<80, 3>))                   \
  X(forward, forward, f128_3x80_free, FLASH_PLAN(Three128<80, 3, 0, false>))    \
  X(key_gradient, keys, k64_2x64, FLASH_PLAN(KeyGradientPlan<64, 2, 64, 3>))    \
  X(key_gradient, keys, k64_2x112, FLASH_PLAN(KeyGradientPlan<64, 2, 112, 2>))  \
  X(key_gradient, keys, k128_2x48, FLASH_PLAN(KeyGradientPlan<128, 2, 48, 3>))  \
  X(key_gradient, keys, k128_2x64_stages3, FLASH_PLAN(KeyGradientPlan<128, 2, 64, 3>)) \
  X(query_gradient, queries, q64_2x96, FLASH_PLAN(QueryGradientPlan<64, 2, 96, 3>)) \
  X(query_gradient, queries, q64_2x128_stages3, FLASH_PLAN(QueryGradientPlan<64, 2, 128, 3>)) \
  X(query_gradient, queries, q64_3x64, FLASH_PLAN(QueryGradientPlan<64, 3, 64, 3>)) \
  X(query_gradient, queries, q128_2x64, FLASH_PLAN(QueryGradientPlan<128, 2, 64, 3>)) \
  X(query_gradient, queries, q128_2x80, FLASH_PLAN(QueryGradientPlan<128, 2, 80, 2>)) \
  X(query_gradient, queries, q128_2x112, FLASH_PLAN(QueryGradientPlan<128, 2, 112, 2>)) \
  X(query_gradient, queries, q128_3x48, FLASH_PLAN(QueryGradientPlan<128, 3, 48, 2>)) \
  X(key_gradient, adding, a64_2x64_stages2, FLASH_PLAN(KeyGradientPlan<64, 2, 64, 2, true>))

// Their plans as types, as a kernel's attributes take no commas; then the kernels.
namespace flash_attention {
namespace hopper {
#define FLASH_CANDIDATE_PLAN(WHAT, PASS, NAME, ...) using Plan_##NAME = __VA_ARGS__;
FLASH_CANDIDATES(FLASH_CANDIDATE_PLAN)
}  // namespace hopper
}  // namespace flash_attention

#define FLASH_CANDIDATE(WHAT, PASS, NAME, ...)                                                             \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::Plan_##NAME::THREADS, 1)           \
      NAME(const __grid_constant__ flash_attention::hopper::HopperParams params) {                         \
    flash_attention::hopper::WHAT<flash_attention::hopper::Bfloat16, flash_attention::hopper::Plan_##NAME>(params); \
  }
FLASH_CANDIDATES(FLASH_CANDIDATE)

namespace {
#define FLASH_CANDIDATE_ENTRY(WHAT, PASS, NAME, ...) {#NAME, FLASH_PARTS(NAME, Plan_##NAME, true, PASS)},
const std::vector<Kernel> CANDIDATES = {FLASH_CANDIDATES(FLASH_CANDIDATE_ENTRY)};
}  // namespace
