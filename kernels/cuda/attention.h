// Attention on a CUDA device: tensors in its memory, work queued on a stream. What others of kernels/ include.
#pragma once

#include "../cpu/attention.h"
#include "driver.h"
#include "plan.h"

namespace flash_attention {

/**
 * Bytes that the kernels take beside the tensors at most, whose pointers may be anything; null where a call has none.
 */
int64_t cuda_forward_workspace(const Problem& problem, const Tensors& tensors, cuda::ComputeType compute,
                               int multiprocessors);
int64_t cuda_backward_workspace(const Problem& problem, const Tensors& tensors, const Gradients& gradients,
                                cuda::ComputeType compute, int multiprocessors);

/**
 * As kernels/cpu/attention.h, on `stream`, with all pointers to device memory. The context is current. Returns when the
 * work is queued; `workspace` is in the order of the stream.
 */
CudaStatus cuda_attention_forward(Device& device, const Problem& problem, const Tensors& tensors,
                                  const ForwardOutputs& outputs, Workspace& workspace, CuStream stream,
                                  cuda::ComputeType compute, cuda::Family family = cuda::Family::best);

/** The same bits every time. */
CudaStatus cuda_attention_backward(Device& device, const Problem& problem, const Tensors& tensors,
                                   const BackwardInputs& inputs, const Gradients& gradients, Workspace& workspace,
                                   CuStream stream, cuda::ComputeType compute,
                                   cuda::Family family = cuda::Family::best);

}  // namespace flash_attention
