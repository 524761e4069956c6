// Kernels that are not shipped, to be timed against those that are: what they do, their plan and their name. Those that
// came nearest (benchmarks/NOTES.md has the others).
#pragma once

#include "problem.h"

/** Makes a plan with commas in its arguments one word for the macros below. */
#define FLASH_PLAN(...) __VA_ARGS__

// (what, pass, name, plan)
#define FLASH_CANDIDATES(X)                                                                    \
  X(forward, forward, f64_3x128_stages3, FLASH_PLAN(ForwardPlan<64, 3, 128, 3>))               \
  X(forward, forward, f64_2x128, FLASH_PLAN(ForwardPlan<64, 2, 128, 3>))                       \
  X(key_gradient, keys, k128_2x64_stages3, FLASH_PLAN(KeyGradientPlan<128, 2, 64, 3>))         \
  X(key_gradient, all, a128_stages3, FLASH_PLAN(KeyGradientPlan<128, 2, 64, 3, ADDED>))        \
  X(key_gradient, all, a128_shared, FLASH_PLAN(KeyGradientPlan<128, 2, 64, 2, ADDED | SHARED>)) \
  X(query_gradient, queries, q64_2x128_stages2, FLASH_PLAN(QueryGradientPlan<64, 2, 128, 2>))

// Their plans as types, as a kernel's attributes take no commas; then the kernels.
namespace flash_attention {
namespace hopper {
#define FLASH_CANDIDATE_PLAN(WHAT, PASS, NAME, ...) using Plan_##NAME = __VA_ARGS__;
FLASH_CANDIDATES(FLASH_CANDIDATE_PLAN)
}  // namespace hopper
}  // namespace flash_attention

#define FLASH_CANDIDATE(WHAT, PASS, NAME, ...)                                                                       \
  extern "C" __global__ void __launch_bounds__(flash_attention::hopper::Plan_##NAME::THREADS, 1)                     \
      NAME(const __grid_constant__ flash_attention::hopper::HopperParams params) {                                   \
    flash_attention::hopper::WHAT<flash_attention::hopper::Bfloat16, flash_attention::hopper::Plan_##NAME>(params);  \
  }
FLASH_CANDIDATES(FLASH_CANDIDATE)

namespace {
#define FLASH_CANDIDATE_ENTRY(WHAT, PASS, NAME, ...)                                                                 \
  {{#NAME, Pass::PASS, true, Plan_##NAME::DEPTH, Plan_##NAME::ROWS, Plan_##NAME::TILE, Plan_##NAME::THREADS,          \
    Plan_##NAME::BYTES}, NAME},
const std::vector<Kernel> CANDIDATES = {FLASH_CANDIDATES(FLASH_CANDIDATE_ENTRY)};
}  // namespace
