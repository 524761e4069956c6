// The kernels for any CPU that this build runs on: with its baseline of vector instructions, of 16 bytes.
#include "kernels.h"

namespace flash_attention {

const Kernels* portable_kernels() {
  static constexpr Kernels kernels = kernels_named("portable");
  return &kernels;
}

}  // namespace flash_attention
