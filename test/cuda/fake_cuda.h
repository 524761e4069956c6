// What fake_libcuda.cc has beside the driver's API.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/driver_api.h"

namespace flash_attention {

struct FakeCuda {
  void (*queue)(CuStream stream, void (*step)(void*), void* data);
  void (*run_but)(CuStream stream);
  void (*configure)(const char* settings);
  const char* (*log)();
  const char* (*violations)();
  size_t (*used)();
  size_t (*peak)();
  size_t (*host_blocks)();
  size_t (*contexts)();

  FakeCuda() {
    const char* path = std::getenv("FLASH_ATTENTION_LIBCUDA");
    void* library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    find(library, "fake_cuda_queue", &queue);
    find(library, "fake_cuda_run_but", &run_but);
    find(library, "fake_cuda_configure", &configure);
    find(library, "fake_cuda_log", &log);
    find(library, "fake_cuda_violations", &violations);
    find(library, "fake_cuda_used", &used);
    find(library, "fake_cuda_peak", &peak);
    find(library, "fake_cuda_host_blocks", &host_blocks);
    find(library, "fake_cuda_contexts", &contexts);
  }

 private:
  template <typename Function>
  static void find(void* library, const char* name, Function* function) {
    *function = library ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr;
    if (!*function) {
      std::fprintf(stderr, "FLASH_ATTENTION_LIBCUDA does not name the fake library\n");
      std::exit(2);
    }
  }
};

}  // namespace flash_attention
