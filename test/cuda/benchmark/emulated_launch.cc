// What a stream is told, for a fake libcuda whose kernels are those of kernels/cuda, on the CPU (emulator.h): all is done
// at once, on no stream. Device memory may then be any memory of the process.
//   FAKE_CUDA_SPOIL=kernel  that kernel is left out: whoever judges results must see it
//   FAKE_CUDA_CRASH=kernel  the process ends there, as if the device were lost
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../emulator.h"
#include "cuda/driver_api.h"
#include "cuda/params.h"

using namespace flash_attention;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT CuResult cuMemsetD8Async(CuDevicePtr to, unsigned char value, size_t count, CuStream) {
  std::memset(reinterpret_cast<void*>(to), value, count);
  return cu::SUCCESS;
}
EXPORT CuResult cuEventRecord(CuEvent, CuStream) { return cu::SUCCESS; }
EXPORT CuResult cuEventSynchronize(CuEvent) { return cu::SUCCESS; }

EXPORT CuResult cuLaunchKernel(CuFunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                               unsigned int block_x, unsigned int, unsigned int, unsigned int, CuStream,
                               void** parameters, void**) {
  const std::string& name = *reinterpret_cast<std::string*>(function);
  const char* spoilt = std::getenv("FAKE_CUDA_SPOIL");
  if (spoilt && name == spoilt) {
    return cu::SUCCESS;
  }
  const char* crashing = std::getenv("FAKE_CUDA_CRASH");
  if (crashing && name == crashing) {
    std::abort();
  }
  Dl_info self;
  dladdr(reinterpret_cast<void*>(&cuLaunchKernel), &self);
  void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  void* kernel = library ? dlsym(library, name.c_str()) : nullptr;
  if (!kernel) {
    std::fprintf(stderr, "there is no emulated kernel %s\n", name.c_str());
    return cu::INVALID_IMAGE;
  }
  emulator::launch({grid_x, grid_y, grid_z}, block_x, [&] {
    if (name == "flash_clear_rows") {
      reinterpret_cast<void (*)(cuda::ClearParams)>(kernel)(*static_cast<cuda::ClearParams*>(parameters[0]));
    } else {
      reinterpret_cast<void (*)(cuda::Params)>(kernel)(*static_cast<cuda::Params*>(parameters[0]));
    }
  });
  return cu::SUCCESS;
}
