// Runs a call whose description and tensors are checked, whichever door it came through.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "../cpu/attention.h"
#include "description.h"

namespace flash_attention {

/** How many calls ran, since the addon was loaded: for tests and reports. */
struct CallCounts {
  std::atomic<int64_t> forward{0}, backward{0}, append{0};
  /** Those of them that TensorFlow made. */
  std::atomic<int64_t> tensorflow{0};
  /** Those that a CUDA device computed, and those that a CPU did in the place of one. */
  std::atomic<int64_t> cuda{0}, in_place_of_cuda{0};
};

CallCounts& call_counts();

/** Threads of a call; 0: as many as there are CPUs for this process. Holds for the process. */
void set_threads(int threads);
int threads();

/** Forward or backward, by the description. `results`: output, LSE, its tail by their names; or wanted gradients. */
std::string run_attention(const Description& description, const Memory& memory, const Memory& results,
                          Workspace& workspace);

/** Writes new rows where `sequences` (and the block table) say, in the memory of k and v. */
void run_append(const Description& description, const Memory& memory);

}  // namespace flash_attention
