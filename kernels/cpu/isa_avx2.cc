// The kernels for CPUs with AVX2. Compiled with that instruction set's flags; without them there are none.
#include "kernels.h"

namespace flash_attention {

#if defined(__AVX2__)
const Kernels* avx2_kernels() {
  static constexpr Kernels kernels = kernels_named("avx2");
  return &kernels;
}
#else
const Kernels* avx2_kernels() { return nullptr; }
#endif

}  // namespace flash_attention
