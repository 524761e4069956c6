#include "images.h"

#include <cstring>

namespace flash_attention {
namespace {

/** How well an image suits a device; 0: not at all. */
int rank(const Image& image, int major, int minor) {
  const int of_image = image.major * 16 + image.minor, of_device = major * 16 + minor;
  switch (image.kind) {
    case ImageKind::exact:
      return of_image == of_device ? 0x30000 : 0;
    case ImageKind::family:
      return image.major == major && image.minor <= minor ? 0x20000 + of_image : 0;
    case ImageKind::ptx:
      return of_image <= of_device ? 0x10000 + of_image : 0;
  }
  return 0;
}

}  // namespace

const Image* pick_image(const Images& images, int unit, int major, int minor) {
  const Image* best = nullptr;
  int best_rank = 0;
  for (size_t n = 0; n < images.image_count; n++) {
    const Image& image = images.images[n];
    const int of_this = image.unit == unit ? rank(image, major, minor) : 0;
    if (of_this > best_rank) {
      best = &image;
      best_rank = of_this;
    }
  }
  return best;
}

int unit_of(const Images& images, const char* kernel) {
  size_t first = 0, end = images.kernel_count;
  while (first < end) {
    const size_t middle = (first + end) / 2;
    const int order = std::strcmp(images.kernels[middle].kernel, kernel);
    if (order == 0) {
      return images.kernels[middle].unit;
    }
    (order < 0 ? first : end) = order < 0 ? middle + 1 : middle;
  }
  return -1;
}

bool serves(const Images& images, int major, int minor) {
  for (size_t n = 0; n < images.image_count; n++) {
    if (rank(images.images[n], major, minor) > 0) {
      return true;
    }
  }
  return false;
}

}  // namespace flash_attention
