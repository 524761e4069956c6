// The kernels for CPUs in the place of those for devices, on the fake libcuda, whose device memory they can reach.
#pragma once

#include <memory>

#include "addon/heap_workspace.h"
#include "cuda/host_call.h"
#include "fake_cuda.h"

namespace flash_attention {

constexpr int64_t WORKSPACE = 1 << 12;

inline const FakeCuda& fake() {
  static const FakeCuda it;
  return it;
}

/** What a kernel is when it runs, some time. */
inline void compute(void* data) {
  const std::unique_ptr<HostCall> call(static_cast<HostCall*>(data));
  HeapWorkspace workspace;
  const Problem& p = call->problem;
  const Status status =
      call->is_backward ? attention_backward(p, call->tensors, call->inputs, call->gradients, workspace, 1)
                        : attention_forward(p, call->tensors, call->outputs, workspace, 1);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.text);
    std::abort();  // kernels have no way to say so
  }
}

inline HostKernels cpu_kernels() {
  return {[](Device&, const HostCall& call, Workspace& workspace, CuStream stream) -> CudaStatus {
            if (!workspace.allocate(WORKSPACE)) {
              return {CudaFailure::failed, "no workspace"};
            }
            fake().queue(stream, compute, new HostCall(call));
            return {};
          },
          [](const HostCall&) { return WORKSPACE; }};
}

}  // namespace flash_attention
