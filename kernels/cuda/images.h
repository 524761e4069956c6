// The compiled kernels that the addon carries. scripts/build_cuda.mjs writes the table (build/cuda/images.cc).
#pragma once

#include <cstddef>

namespace flash_attention {

/** Which devices an image is for. */
enum class ImageKind {
  /** Machine code for one compute capability and those of its major version that come later: sm_80 runs on 8.6. */
  family,
  /** Machine code with instructions of its architecture alone: sm_90a runs on 9.0 and nothing else. */
  exact,
  /** PTX, which the driver compiles: for its compute capability and any later. */
  ptx,
};

struct Image {
  /** Number of the unit: what was compiled together, and becomes one module. */
  int unit;
  ImageKind kind;
  int major, minor;
  const void* data;
  size_t bytes;
};

/** In which unit a kernel is. A unit may have no image for some device. */
struct KernelPlace {
  const char* kernel;
  int unit;
};

struct Images {
  /** Of the CUDA that compiled them, as in 13000 for 13.0; 0: the addon was built without kernels. */
  int toolkit = 0;
  int units = 0;
  const Image* images = nullptr;
  size_t image_count = 0;
  /** Sorted by name. */
  const KernelPlace* kernels = nullptr;
  size_t kernel_count = 0;
};

/** Those in the addon. */
const Images& embedded_images();

/**
 * The best image of a unit for a device: exact machine code, then that of the closest older minor version, then the
 * latest PTX that the device can take; or null.
 */
const Image* pick_image(const Images& images, int unit, int major, int minor);

/** The unit of a kernel, or −1. */
int unit_of(const Images& images, const char* kernel);

/** Whether any unit has an image for such a device. */
bool serves(const Images& images, int major, int minor);

}  // namespace flash_attention
