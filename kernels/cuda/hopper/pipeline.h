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
class Ring {
 public:
  FLASH_SHARED_CODE int stage() const { return static_cast<int>(at_ & 0xff); }
  /** Of the buffer before. */
  FLASH_SHARED_CODE int stage_before() const { return stage() == 0 ? STAGES - 1 : stage() - 1; }
  FLASH_SHARED_CODE uint32_t phase() const { return at_ >> 8; }
  FLASH_SHARED_CODE void advance() { at_ = stage() == STAGES - 1 ? ~at_ & 0x100 : at_ + 1; }

 private:
  // Both in one register: consumers have none to spare.
  uint32_t at_ = 0;
};

}  // namespace hopper
}  // namespace flash_attention
