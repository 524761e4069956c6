// The kernels for CPUs with AVX-512. Compiled with that instruction set's flags; without them there are none.
#include "kernels.h"

namespace flash_attention {

#if defined(__AVX512F__)
const Kernels* avx512_kernels() {
  static constexpr Kernels kernels = kernels_named("avx512");
  return &kernels;
}
#else
const Kernels* avx512_kernels() { return nullptr; }
#endif

}  // namespace flash_attention
