// A ring of buffers between one that fills and several that use them, each buffer with a full and an empty mbarrier.
// Plain arithmetic, so that a test can run it against barriers that know when they are misused.
#pragma once

#include "layouts.h"

namespace flash_attention {
namespace hopper {

/**
 * Where one walks the ring. The user waits for the full barrier with `phase`, the filler for the empty one with
 * `phase ^ 1`: a barrier that nothing has completed yet counts as having just completed its phase of parity 1.
 */
template <int STAGES>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;

  FLASH_SHARED_CODE void advance() {
    stage++;
    if (stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

}  // namespace hopper
}  // namespace flash_attention
