// In the place of kernels/addon/device_kernels.cc: the kernels for CPUs, queued on the fake libcuda's streams.
#include "addon/device_kernels.h"

#include "cpu_kernels.h"

namespace flash_attention {

HostKernels device_kernels(const Device&, cuda::ComputeType, cuda::Family) { return cpu_kernels(); }

}  // namespace flash_attention
