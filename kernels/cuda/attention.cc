#include "attention.h"

namespace flash_attention {
namespace {

using cuda::CallKind;
using cuda::ComputeType;
using cuda::Family;
using cuda::Launch;
using cuda::Params;
using cuda::Plan;

constexpr const char* OUT_OF_MEMORY =
    "out of device memory for what the kernels keep beside the tensors; use shorter sequences or a smaller batch";

CudaStatus run_plan(Device& device, const Plan& plan, Workspace& workspace, CuStream stream) {
  if (!plan.problem.empty()) {
    return {CudaFailure::failed, plan.problem};
  }
  void* memory = workspace.allocate(static_cast<size_t>(plan.workspace_bytes));
  if (!memory) {
    return {CudaFailure::out_of_memory, OUT_OF_MEMORY};
  }
  Params params = bound_params(plan, memory);
  Params odd_params = params;
  odd_params.parts = 1;
  odd_params.part_keys = params.key_length;
  odd_params.all_odd = 0;
  hopper::HopperParams hopper_params;
  for (const Launch& launch : plan.launches) {
    Kernel kernel;
    CudaStatus status = device.kernel(launch.kernel.c_str(), launch.shared_bytes, &kernel);
    const void* taken = nullptr;
    switch (launch.takes) {
      case Launch::Takes::params:
        params.which = launch.which;
        taken = &params;
        break;
      case Launch::Takes::odd_params:
        taken = &odd_params;
        break;
      case Launch::Takes::clear:
        taken = &launch.clear;
        break;
      case Launch::Takes::hopper:
        taken = &hopper_params;
        if (status.ok()) {
          status = cuda_status(
              make_hopper_params(device.api().tensor_map_tiled, params, launch.hopper, &hopper_params),
              "cuTensorMapEncodeTiled");
        }
    }
    if (status.ok()) {
      status = device.launch(kernel, {launch.x, launch.y, launch.z}, launch.threads, stream, taken);
    }
    if (!status.ok()) {
      return status;
    }
  }
  return {};
}

/** Elements of the output's rows, and of the LSE, in the strides that the problem has for them. */
struct OutputElements {
  int64_t output, lse;
};

OutputElements output_elements(const Problem& problem) {
  const int64_t batches = problem.packed_sequences ? 1 : problem.batch;
  const auto last = [](int64_t count, int64_t stride) { return (count > 0 ? count - 1 : 0) * stride; };
  const Strides& rows = problem.output;
  return {rows.base + last(batches, rows.batch) + last(problem.query_rows, rows.row) +
              last(problem.query_heads, rows.head) + problem.value_size,
          last(batches, problem.lse_batch) + last(problem.query_heads, problem.lse_head) + problem.query_rows};
}

CallKind kind_of(ComputeType compute, bool is_backward, bool may_be_few) {
  CallKind call;
  call.compute = compute;
  call.is_backward = is_backward;
  call.may_be_few = may_be_few;
  return call;
}

CallKind kind_on(const Device& device, ComputeType compute, bool is_backward, bool may_be_few, Family family) {
  CallKind call = kind_of(compute, is_backward, may_be_few);
  call.has_hopper = device.info().major == 9 && device.info().minor == 0 && device.api().tensor_map_tiled;
  call.family = family;
  return call;
}

}  // namespace

int64_t cuda_forward_workspace(const Problem& problem, const Tensors& tensors, ComputeType compute,
                               int multiprocessors) {
  return make_forward_plan(problem, tensors, {}, kind_of(compute, false, true), multiprocessors).workspace_bytes;
}

int64_t cuda_backward_workspace(const Problem& problem, const Tensors& tensors, const Gradients& gradients,
                                ComputeType compute, int multiprocessors) {
  int64_t bytes = make_backward_plan(problem, tensors, {}, gradients, kind_of(compute, true, false), multiprocessors)
                      .workspace_bytes;
  if (cuda::is_few_rows(problem)) {
    const OutputElements elements = output_elements(problem);
    bytes += 4 * (elements.output + 2 * elements.lse) + 3 * 256 +
        make_forward_plan(problem, tensors, {}, kind_of(compute, false, false), multiprocessors).workspace_bytes;
  }
  return bytes;
}

CudaStatus cuda_attention_forward(Device& device, const Problem& problem, const Tensors& tensors,
                                  const ForwardOutputs& outputs, Workspace& workspace, CuStream stream,
                                  ComputeType compute, Family family) {
  return run_plan(device,
                  make_forward_plan(problem, tensors, outputs, kind_on(device, compute, false, true, family),
                                    device.info().multiprocessors),
                  workspace, stream);
}

CudaStatus cuda_attention_backward(Device& device, const Problem& problem, const Tensors& tensors,
                                   const BackwardInputs& given, const Gradients& gradients, Workspace& workspace,
                                   CuStream stream, ComputeType compute, Family family) {
  const int multiprocessors = device.info().multiprocessors;
  BackwardInputs inputs = given;
  if (cuda::is_few_rows(problem)) {
    // The LSE again, from operands and scores that are rounded as the backward pass rounds them.
    const OutputElements elements = output_elements(problem);
    ForwardOutputs again;
    again.output = static_cast<float*>(workspace.allocate(static_cast<size_t>(elements.output) * 4));
    again.lse = static_cast<float*>(workspace.allocate(static_cast<size_t>(elements.lse) * 4));
    again.lse_tail = static_cast<float*>(workspace.allocate(static_cast<size_t>(elements.lse) * 4));
    if (!again.output || !again.lse || !again.lse_tail) {
      return {CudaFailure::out_of_memory, OUT_OF_MEMORY};
    }
    const CudaStatus status = run_plan(
        device,
        make_forward_plan(problem, tensors, again, kind_on(device, compute, false, false, family), multiprocessors),
        workspace, stream);
    if (!status.ok()) {
      return status;
    }
    inputs.lse = again.lse;
    inputs.lse_tail = again.lse_tail;
  }
  return run_plan(
      device,
      make_backward_plan(problem, tensors, inputs, gradients, kind_on(device, compute, true, false, family),
                         multiprocessors),
      workspace, stream);
}

}  // namespace flash_attention
