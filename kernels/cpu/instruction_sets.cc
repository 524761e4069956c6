// Which of the built kernels this CPU runs.
#include "instruction_sets.h"

#include <atomic>
#include <cstring>

#include "attention.h"

namespace flash_attention {
namespace {

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

/** The best first; null where the build or the CPU lacks a set. */
const Kernels* usable(int rank) {
  switch (rank) {
    case 0:
      return has_avx512() ? avx512_kernels() : nullptr;
    case 1:
      return has_avx2() ? avx2_kernels() : nullptr;
    default:
      return portable_kernels();
  }
}

constexpr int RANKS = 3;

const Kernels* best() {
  int rank = 0;
  while (!usable(rank)) {
    rank++;
  }
  return usable(rank);
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> kernels{best()};
  return kernels;
}

}  // namespace

const Kernels& current_kernels() { return *chosen(); }

const char* instruction_set() { return current_kernels().name; }

bool force_instruction_set(const char* name) {
  for (int rank = 0; rank < RANKS; rank++) {
    const Kernels* kernels = usable(rank);
    if (kernels && std::strcmp(kernels->name, name) == 0) {
      chosen() = kernels;
      return true;
    }
  }
  return false;
}

}  // namespace flash_attention
