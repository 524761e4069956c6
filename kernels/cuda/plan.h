// How a call becomes kernels: which, on what grids, with what workspace. Pure: knows no driver.
#pragma once

#include <string>
#include <vector>

#include "../cpu/problem.h"
#include "hopper/launch.h"
#include "params.h"

namespace flash_attention {
namespace cuda {

/** The least precision that a call allows inside (DESIGN: computeType). */
enum class ComputeType { float32, tensorfloat32, float16, bfloat16 };

/** What elements of canonical operands are; the names are those of mma.cuh. */
enum class OperandKind { Bf16, F16, SplitF16 };

/** One kernel of a call. */
struct Launch {
  std::string kernel;
  unsigned int x, y, z, threads;
  int shared_bytes;
  /**
   * What it takes: the plan's Params with `which`, those for odd groups (keys not in parts), `clear`, or what `hopper`
   * makes of the plan's Params.
   */
  enum class Takes { params, odd_params, clear, hopper } takes;
  int which;
  ClearParams clear;
  hopper::HopperLaunch hopper;
};

/** Whose tile kernels; not `best` is for tests, and the other serves where the one cannot. */
enum class Family { best, mma_sync, hopper };

/** What is asked for, besides the problem and the tensors. */
struct CallKind {
  bool is_backward = false;
  ComputeType compute = ComputeType::float32;
  /** Whether the kernel for few rows may serve: not where the LSE must be rounded as the backward pass has it. */
  bool may_be_few = true;
  /** Whether the device is of compute capability 9.0, exactly, and its driver knows tensor maps. */
  bool has_hopper = false;
  Family family = Family::best;
};

struct Plan {
  /** Empty, or which limit the call is over, and the remedy. */
  std::string problem;
  OperandKind kind = OperandKind::SplitF16;
  bool is_general = false, is_few_rows = false;
  /** All but what points into the workspace, which is an offset from its start, plus 1. */
  Params params = {};
  int64_t workspace_bytes = 0;
  std::vector<Launch> launches;
};

/** Few enough rows to a key head that k and v are read once, in float32, straight from the tensors. */
bool is_few_rows(const Problem& problem);

/** @param multiprocessors of the device: what the parts of the keys are cut for */
Plan make_forward_plan(const Problem& problem, const Tensors& tensors, const ForwardOutputs& outputs,
                       const CallKind& call, int multiprocessors);
Plan make_backward_plan(const Problem& problem, const Tensors& tensors, const BackwardInputs& inputs,
                        const Gradients& gradients, const CallKind& call, int multiprocessors);

/** The plan's Params with its workspace at `memory`. */
Params bound_params(const Plan& plan, void* memory);

/** Every kernel's name and dynamic shared memory, for the build check and the plan's test. */
struct BuiltKernel {
  std::string name;
  int threads, shared_bytes;
};
std::vector<BuiltKernel> built_kernels();

}  // namespace cuda
}  // namespace flash_attention
