// New rows of a cache in the memory of a device.
#pragma once

#include "../cpu/problem.h"
#include "driver.h"

namespace flash_attention {

/**
 * As append_to_cache of kernels/cpu/attention.h, by copies queued on `stream`: one for whatever lies together, so one
 * for each sequence (and page) of keys and of values where heads lie side by side. All pointers are to device memory
 * but `tensors.sequences` and `tensors.block_table`, which the host reads. Current.
 */
CudaStatus cuda_append_to_cache(Device& device, const Problem& problem, const Tensors& tensors, const float* new_values,
                                float* k, float* v, CuStream stream);

}  // namespace flash_attention
