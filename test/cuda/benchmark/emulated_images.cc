// Images that fake_libcuda.cc takes for such, of every kernel of kernels/cuda/plan.h.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/images.h"
#include "cuda/plan.h"

namespace flash_attention {

const Images& embedded_images() {
  static const uint32_t data[] = {0xBA55ED50u};
  static const Image image = {0, ImageKind::ptx, 8, 0, data, sizeof(data)};
  static const auto& names = *new std::vector<cuda::BuiltKernel>(cuda::built_kernels());
  static const auto& places = *[] {
    auto* made = new std::vector<KernelPlace>;
    for (const cuda::BuiltKernel& kernel : names) {
      made->push_back({kernel.name.c_str(), 0});
    }
    std::sort(made->begin(), made->end(),
              [](const KernelPlace& a, const KernelPlace& b) { return std::strcmp(a.kernel, b.kernel) < 0; });
    return made;
  }();
  static const Images table = {13000, 1, &image, 1, places.data(), places.size()};
  return table;
}

}  // namespace flash_attention
