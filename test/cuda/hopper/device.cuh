// The device, for the tests of this folder: memory, launches, and a wait that does not last for ever.
#pragma once

#include <cuda_runtime.h>
#include <unistd.h>

#include <chrono>

#include "problem.h"

namespace {

/** How a process ends whose kernel hangs, or fails in a way that leaves nothing to go on with. */
constexpr int HANGS = 3, BROKEN = 4;

#define OK(call)                                                                                        \
  do {                                                                                                  \
    const cudaError_t error = (call);                                                                   \
    if (error != cudaSuccess) {                                                                         \
      std::printf("! %s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));           \
      std::fflush(stdout);                                                                              \
      _exit(BROKEN);                                                                                    \
    }                                                                                                   \
  } while (false)

void* device_allocate(size_t bytes) {
  void* memory;
  OK(cudaMalloc(&memory, std::max<size_t>(bytes, 16)));
  return memory;
}
void device_free(void* memory) { cudaFree(memory); }
void device_write(void* to, const void* from, size_t bytes) { OK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice)); }
void device_read(void* to, const void* from, size_t bytes) { OK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost)); }

EncodeTensorMap device_encoder() {
  static EncodeTensorMap encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    return reinterpret_cast<EncodeTensorMap>(function);
  }();
  return encode;
}

int device_processors() {
  static const int count = [] {
    int processors;
    OK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    return processors;
  }();
  return count;
}

/** Until all that was launched is done; ends the process where that takes 8 seconds. */
void await_device(const char* what) {
  OK(cudaGetLastError());
  cudaEvent_t done;
  OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  OK(cudaEventRecord(done));
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const cudaError_t state = cudaEventQuery(done);
    if (state == cudaSuccess) {
      break;
    }
    if (state != cudaErrorNotReady) {
      std::printf("! %s: %s\n", what, cudaGetErrorString(state));
      std::fflush(stdout);
      _exit(BROKEN);
    }
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(8)) {
      std::printf("! %s: HANGS\n", what);
      std::fflush(stdout);
      _exit(HANGS);
    }
  }
  OK(cudaEventDestroy(done));
}

void start_kernel(const HopperParams& params, const Kernel& kernel) {
  const int blocks = blocks_of(params, kernel);
  OK(cudaMemsetAsync(params.next_tile, 0, sizeof(uint32_t)));
  if (blocks > 0) {
    kernel.function<<<blocks, kernel.threads, kernel.shared_bytes>>>(params);
  }
}

void allow_bytes(const Kernel& kernel) {
  OK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.function), cudaFuncAttributeMaxDynamicSharedMemorySize,
                          kernel.shared_bytes));
}

void device_launch(const HopperParams& params, const Kernel& kernel) {
  allow_bytes(kernel);
  start_kernel(params, kernel);
  await_device(kernel.name);
}

}  // namespace
