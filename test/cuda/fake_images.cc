// Images that only fake_libcuda.cc takes for such: enough to see which one is picked.
#include <cstdint>

#include "cuda/images.h"

namespace flash_attention {

const Images& embedded_images() {
  static const uint32_t data[] = {0xBA55ED50u};
  static const uint32_t broken[] = {0};
  static const Image images[] = {
      {0, ImageKind::family, 8, 0, data, sizeof(data)}, {0, ImageKind::exact, 9, 0, data, sizeof(data)},
      {0, ImageKind::ptx, 10, 0, data, sizeof(data)},   {1, ImageKind::exact, 9, 0, broken, sizeof(broken)},
  };
  static const KernelPlace kernels[] = {
      {"broken_kernel", 1}, {"flash_probe", 0}, {"flash_probe_architecture", 0}};
  static const Images table = {13000, 2, images, 4, kernels, 3};
  return table;
}

}  // namespace flash_attention
