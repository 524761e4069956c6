#include "device_kernels.h"

#include "../cuda/attention.h"

namespace flash_attention {

HostKernels device_kernels(const Device& for_device, cuda::ComputeType compute, cuda::Family family) {
  const int multiprocessors = for_device.info().multiprocessors;
  HostKernels kernels;
  kernels.run = [compute, family](Device& device, const HostCall& call, Workspace& workspace, CuStream stream) {
    return call.is_backward ? cuda_attention_backward(device, call.problem, call.tensors, call.inputs, call.gradients,
                                                      workspace, stream, compute, family)
                            : cuda_attention_forward(device, call.problem, call.tensors, call.outputs, workspace,
                                                     stream, compute, family);
  };
  kernels.workspace_bytes = [compute, multiprocessors](const HostCall& call) {
    return call.is_backward
               ? cuda_backward_workspace(call.problem, call.tensors, call.gradients, compute, multiprocessors)
               : cuda_forward_workspace(call.problem, call.tensors, compute, multiprocessors);
  };
  return kernels;
}

}  // namespace flash_attention
