// What emulated_hopper.cc gives.
#pragma once

#include "../../kernels/cuda/hopper/launch.h"

extern "C" {
flash_attention::CuResult emulated_tensor_map(flash_attention::CuTensorMap* map, int type, unsigned int rank,
                                              void* address, const uint64_t* sizes, const uint64_t* strides,
                                              const unsigned int* box, const unsigned int* steps, int interleave,
                                              int swizzle, int promotion, int outside);
bool run_emulated_hopper(const char* name, const flash_attention::hopper::HopperParams* params, int blocks,
                         int threads);
}
