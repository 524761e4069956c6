// Which of the built kernels this CPU runs.
#include "instruction_sets.h"

#include <atomic>
#include <cstring>

#include "attention.h"
#include "cpu_features.h"

namespace flash_attention {
namespace {

/** The best first; null where the build or the CPU lacks a set. */
const Kernels* usable(int rank) {
  switch (rank) {
    case 0:
      return cpu_has_avx512() ? avx512_kernels() : nullptr;
    case 1:
      return cpu_has_avx2() ? avx2_kernels() : nullptr;
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
