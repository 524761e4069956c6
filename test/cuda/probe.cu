// Kernels that show whether images are found, loaded and launched, apart from any that compute attention.
#include <stdint.h>

struct ProbeParams {
  float* values;
  int64_t count;
  float factor;
};

/** values[i] = i · factor, through as much shared memory as the launch has. */
extern "C" __global__ void flash_probe(const ProbeParams params) {
  extern __shared__ float memory[];
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  memory[threadIdx.x] = static_cast<float>(i) * params.factor;
  __syncthreads();
  if (i < params.count) {
    params.values[i] = memory[threadIdx.x];
  }
}

/** Which architecture's code runs: 900 for sm_90a, 1000 for PTX on anything newer. */
extern "C" __global__ void flash_probe_architecture(const ProbeParams params) {
#ifdef __CUDA_ARCH__
  params.values[0] = __CUDA_ARCH__;
#endif
}
