// Linked with runner.cc: its kernels are those of the emulator, on the fake libcuda, which finds them here. So the case
// table judges the kernels' own source, and all of the host's, without a GPU.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/images.h"
#include "cuda/plan.h"
#include "emulator.h"
#include "fake_cuda.h"

namespace flash_attention {
namespace {

struct EmulatedLaunch {
  void* kernel;
  Dim3 grid;
  unsigned int threads;
  bool takes_clear;
  cuda::ClearParams clear;
  cuda::Params params;
};

void run(void* data) {
  const std::unique_ptr<EmulatedLaunch> launch(static_cast<EmulatedLaunch*>(data));
  emulator::launch(launch->grid, launch->threads, [&] {
    if (launch->takes_clear) {
      reinterpret_cast<void (*)(cuda::ClearParams)>(launch->kernel)(launch->clear);
    } else {
      reinterpret_cast<void (*)(cuda::Params)>(launch->kernel)(launch->params);
    }
  });
}

}  // namespace

const Images& embedded_images() {
  static const uint32_t data[] = {0xBA55ED50u};
  static const Image images[] = {{0, ImageKind::family, 8, 0, data, sizeof(data)}};
  static const Images table = [] {
    static std::vector<std::string> names = {"flash_probe", "flash_probe_architecture"};
    static std::vector<KernelPlace> kernels;
    for (const cuda::BuiltKernel& kernel : cuda::built_kernels()) {
      names.push_back(kernel.name);
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      kernels.push_back({name.c_str(), 0});
    }
    return Images{13000, 1, images, 1, kernels.data(), kernels.size()};
  }();
  return table;
}

}  // namespace flash_attention

/** False where there is no such kernel. */
extern "C" bool emulate_kernel(flash_attention::CuStream stream, const char* name, const unsigned int (&size)[4],
                               const void* parameters) {
  using namespace flash_attention;
  static const FakeCuda fake;
  auto launch = std::make_unique<EmulatedLaunch>();
  launch->kernel = dlsym(RTLD_DEFAULT, name);
  launch->grid = {size[0], size[1], size[2]};
  launch->threads = size[3];
  launch->takes_clear = std::string(name) == "flash_clear_rows";
  if (!launch->kernel) {
    return false;
  }
  if (launch->takes_clear) {
    launch->clear = *static_cast<const cuda::ClearParams*>(parameters);
  } else {
    launch->params = *static_cast<const cuda::Params*>(parameters);
  }
  fake.queue(stream, run, launch.release());
  return true;
}
