// The kernels for CUDA devices as calls want them: the one place of the addon that knows kernels/cuda/attention.h.
#pragma once

#include "../cuda/host_call.h"
#include "../cuda/plan.h"

namespace flash_attention {

/** @param family other than `best` is for tests. */
HostKernels device_kernels(const Device& device, cuda::ComputeType compute, cuda::Family family = cuda::Family::best);

}  // namespace flash_attention
