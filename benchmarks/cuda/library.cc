// The CUDA kernels as a shared library for library.py: calls on device pointers, in a workspace that the caller gives,
// on a stream of the primary context, which is PyTorch's too. Nothing is allocated on the device and nothing waited
// for. Every function gives the text of an error, or "".
//
// What is measured is the package's own way through kernels/cuda. Two things are put between it and the driver, in the
// table of the driver's functions: launches may be left out by name, and events may stand around each.
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda/attention.h"

#define FLASH_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace flash_attention;
using cuda::ComputeType;

/** As library.py has it. Strides in elements, of batch, head and row. */
struct FlashCall {
  int64_t batch, query_length, key_length, query_heads, key_heads, head_size, value_size;
  int64_t q_strides[3], k_strides[3], v_strides[3], output_strides[3];
  double softmax_scale;
  int32_t causal, compute, family, deterministic;
  const float *q, *k, *v;
  float *output, *lse, *lse_tail;
  const float* d_output;
  float *d_q, *d_k, *d_v;
};

Device* device = nullptr;
std::string last_error;

const char* answer(const std::string& text) {
  last_error = text;
  return last_error.c_str();
}

struct TimedLaunch {
  std::string kernel;
  CuEvent start, end;
};

std::map<CuFunction, std::string> names;
bool leaves_out_conversions = false, is_profiled = false;
std::vector<std::string> launched;
std::vector<TimedLaunch> timed;

/**
 * What makes canonical operands from float32 tensors. They stay in the workspace, with what was found of the batches'
 * places and magnitudes: a call that leaves these out computes the same again, as compare.py makes sure.
 */
bool is_conversion(const std::string& kernel) {
  for (const char* start : {"flash_locate", "flash_sample", "flash_convert"}) {
    if (kernel.compare(0, std::strlen(start), start) == 0) {
      return true;
    }
  }
  return false;
}

/** What flash_locate and flash_sample do and the tile kernels undo: they draw their tiles from these counters. */
CuResult clear_counters(const cuda::Params& params, CuStream stream) {
  return cuda_driver().api.fill_bytes(reinterpret_cast<uintptr_t>(params.tile_counters), 0,
                                      cuda::TILE_COUNTERS * sizeof(*params.tile_counters), stream);
}

decltype(DriverApi::module_function) real_module_function;
decltype(DriverApi::launch) real_launch;
decltype(DriverApi::launch_with) real_launch_with;

CuResult named_module_function(CuFunction* function, CuModule module, const char* name) {
  const CuResult result = real_module_function(function, module, name);
  if (result == cu::SUCCESS) {
    names[*function] = name;
  }
  return result;
}

template <typename Launch>
CuResult tapped(CuFunction function, CuStream stream, void** parameters, const Launch& launch) {
  const std::string& kernel = names[function];
  if (leaves_out_conversions && is_conversion(kernel)) {
    const bool locates = kernel.compare(0, 13, "flash_convert") != 0;
    return locates ? clear_counters(*static_cast<cuda::Params*>(parameters[0]), stream) : cu::SUCCESS;
  }
  launched.push_back(kernel);
  if (!is_profiled) {
    return launch();
  }
  const DriverApi& api = cuda_driver().api;
  TimedLaunch one = {kernel, nullptr, nullptr};
  api.event_create(&one.start, 0);
  api.event_create(&one.end, 0);
  api.event_record(one.start, stream);
  const CuResult result = launch();
  api.event_record(one.end, stream);
  timed.push_back(std::move(one));
  return result;
}

CuResult tapped_launch(CuFunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                       unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared_bytes,
                       CuStream stream, void** parameters, void** extra) {
  return tapped(function, stream, parameters, [&] {
    return real_launch(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters,
                       extra);
  });
}

CuResult tapped_launch_with(const CuLaunchConfig* config, CuFunction function, void** parameters, void** extra) {
  return tapped(function, config->stream, parameters,
                [&] { return real_launch_with(config, function, parameters, extra); });
}

/** Hands out the caller's memory from its start. */
class GivenWorkspace : public Workspace {
 public:
  GivenWorkspace(void* memory, int64_t bytes) : memory_(static_cast<char*>(memory)), left_(bytes) {}

  void* allocate(size_t bytes) override {
    const auto whole = static_cast<int64_t>((bytes + 255) / 256 * 256);
    if (whole > left_) {
      return nullptr;
    }
    void* taken = memory_;
    memory_ += whole;
    left_ -= whole;
    return taken;
  }

 private:
  char* memory_;
  int64_t left_;
};

Strides strides_of(const int64_t (&given)[3]) { return {0, given[0], given[2], given[1]}; }

Problem problem_of(const FlashCall& call) {
  Problem problem;
  problem.batch = problem.key_batches = call.batch;
  problem.query_length = problem.query_rows = call.query_length;
  problem.key_length = problem.key_rows = call.key_length;
  problem.query_heads = call.query_heads;
  problem.key_heads = call.key_heads;
  problem.head_size = call.head_size;
  problem.value_size = call.value_size;
  problem.window_right = call.causal ? 0 : -1;
  problem.softmax_scale = call.softmax_scale;
  problem.deterministic = call.deterministic != 0;
  problem.q = strides_of(call.q_strides);
  problem.k = strides_of(call.k_strides);
  problem.v = strides_of(call.v_strides);
  problem.output = strides_of(call.output_strides);
  problem.lse_batch = call.query_heads * call.query_length;
  problem.lse_head = call.query_length;
  return problem;
}

Tensors tensors_of(const FlashCall& call) {
  Tensors tensors;
  tensors.q = call.q;
  tensors.k = call.k;
  tensors.v = call.v;
  return tensors;
}

Gradients gradients_of(const FlashCall& call) {
  Gradients gradients;
  gradients.d_q = call.d_q;
  gradients.d_k = call.d_k;
  gradients.d_v = call.d_v;
  return gradients;
}

}  // namespace

/** The device of this number, to be called once and first. The one that PyTorch has by the same number. */
FLASH_EXPORT const char* flash_cuda_open(int ordinal) {
  const CudaDriver& driver = cuda_driver();
  if (driver.status.ok() && !real_launch) {
    auto& api = const_cast<DriverApi&>(driver.api);
    real_module_function = api.module_function;
    real_launch = api.launch;
    real_launch_with = api.launch_with;
    api.module_function = named_module_function;
    api.launch = tapped_launch;
    if (real_launch_with) {
      api.launch_with = tapped_launch_with;
    }
  }
  return answer(Device::open(ordinal, &device).text);
}

/** "13.0 13.0": the CUDA of the driver, and of the compiler of the kernels. */
FLASH_EXPORT const char* flash_cuda_versions() {
  return answer(cuda_version_text(cuda_driver().version) + " " + cuda_version_text(embedded_images().toolkit));
}

/** Bytes that a pass takes beside the tensors. */
FLASH_EXPORT int64_t flash_cuda_workspace(const FlashCall* call, int is_backward) {
  const auto compute = static_cast<ComputeType>(call->compute);
  const int64_t bytes = is_backward
      ? cuda_backward_workspace(problem_of(*call), tensors_of(*call), gradients_of(*call), compute,
                                device->info().multiprocessors)
      : cuda_forward_workspace(problem_of(*call), tensors_of(*call), compute, device->info().multiprocessors);
  return bytes + 256;
}

/** Queues a pass. @param kernels_alone: without conversions, whose results are in the workspace from a call before. */
FLASH_EXPORT const char* flash_cuda_run(const FlashCall* call, int is_backward, int kernels_alone, void* memory,
                                        int64_t bytes, void* stream) {
  const ContextScope scope(*device);
  if (!scope.status().ok()) {
    return answer(scope.status().text);
  }
  GivenWorkspace workspace(memory, bytes);
  leaves_out_conversions = kernels_alone != 0;
  launched.clear();
  const auto compute = static_cast<ComputeType>(call->compute);
  const auto family = static_cast<cuda::Family>(call->family);
  const auto on = static_cast<CuStream>(stream);
  CudaStatus status;
  if (is_backward) {
    BackwardInputs inputs;
    inputs.output = call->output;
    inputs.lse = call->lse;
    inputs.lse_tail = call->lse_tail;
    inputs.d_output = call->d_output;
    status = cuda_attention_backward(*device, problem_of(*call), tensors_of(*call), inputs, gradients_of(*call),
                                     workspace, on, compute, family);
  } else {
    ForwardOutputs outputs;
    outputs.output = call->output;
    outputs.lse = call->lse;
    outputs.lse_tail = call->lse_tail;
    status = cuda_attention_forward(*device, problem_of(*call), tensors_of(*call), outputs, workspace, on, compute,
                                    family);
  }
  leaves_out_conversions = false;
  return answer(status.text);
}

/** The kernels of the last call, one after the other, with spaces between. */
FLASH_EXPORT const char* flash_cuda_launched() {
  std::string text;
  for (const std::string& kernel : launched) {
    text += (text.empty() ? "" : " ") + kernel;
  }
  return answer(text);
}

/** From now on events stand around every kernel, or no more. */
FLASH_EXPORT void flash_cuda_profile(int is_on) { is_profiled = is_on != 0; }

/** "name count milliseconds" of each kernel since profiling began, a line each, and begins anew. Waits for them. */
FLASH_EXPORT const char* flash_cuda_profiled() {
  const ContextScope scope(*device);
  const DriverApi& api = cuda_driver().api;
  std::vector<std::string> order;
  std::map<std::string, std::pair<int, double>> sums;
  for (const TimedLaunch& one : timed) {
    float milliseconds = 0;
    api.event_synchronize(one.end);
    api.event_elapsed(&milliseconds, one.start, one.end);
    api.event_destroy(one.start);
    api.event_destroy(one.end);
    if (sums.find(one.kernel) == sums.end()) {
      order.push_back(one.kernel);
    }
    auto& sum = sums[one.kernel];
    sum.first++;
    sum.second += milliseconds;
  }
  timed.clear();
  std::string text;
  for (const std::string& kernel : order) {
    text += kernel + " " + std::to_string(sums[kernel].first) + " " + std::to_string(sums[kernel].second) + "\n";
  }
  return answer(text);
}
