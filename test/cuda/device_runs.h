// How runner.cc runs a kernel to try the device, and a call on it.
#pragma once

#include <algorithm>

#include "addon/described_call.h"
#include "cuda/memory.h"
#include "cuda/streams.h"
#include "door.h"
#include "op_runs.h"
#include "sanitizers/call_runs.h"

namespace flash_attention {

struct ProbeParams {
  CuDevicePtr values;
  int64_t count;
  float factor;
};

/** Runs both kernels of probe.cu; gives what went wrong. `text` is what the code that ran is for. */
inline std::string run_probe(Device& device, std::string* text) {
  constexpr int64_t COUNT = 10000;
  const ContextScope scope(device);
  StreamOwner stream(device);
  PinnedBuffer buffer(device, COUNT * sizeof(float));
  DeviceWorkspace workspace(device, stream.get());
  void* memory = workspace.allocate(COUNT * sizeof(float));
  if (!memory || !buffer.status().ok()) {
    return workspace.status().text + buffer.status().text;
  }
  // Only one value is written by the first kernel; what is copied back is read whole.
  device.api().fill_bytes(reinterpret_cast<uintptr_t>(memory), 0, COUNT * sizeof(float), stream.get());
  const ProbeParams params = {reinterpret_cast<uintptr_t>(memory), COUNT, 0.5f};
  auto* values = static_cast<float*>(buffer.get());
  for (const char* name : {"flash_probe_architecture", "flash_probe"}) {
    Kernel kernel;
    CudaStatus status = begin_after_context(device, stream.get());
    if (status.ok()) {
      status = device.kernel(name, 64 << 10, &kernel);
    }
    if (status.ok()) {
      status = device.launch(kernel, {(COUNT + 255) / 256}, 256, stream.get(), &params);
    }
    if (status.ok()) {
      status = cuda_status(
          device.api().copy_to_host(values, params.values, COUNT * sizeof(float), stream.get()), "cuMemcpyDtoHAsync");
    }
    if (status.ok()) {
      status = hold_context_until(device, stream.get());
    }
    if (status.ok()) {
      status = cuda_status(device.api().stream_synchronize(stream.get()), "cuStreamSynchronize");
    }
    if (!status.ok()) {
      return std::string(name) + ": " + status.text;
    }
    if (std::string(name) == "flash_probe_architecture") {
      *text = "code of compute capability " + std::to_string(values[0] / 100).substr(0, 4) + " runs";
    }
  }
  for (int64_t i = 0; i < COUNT; i++) {
    if (values[i] != 0.5f * static_cast<float>(i)) {
      return "flash_probe: value " + std::to_string(i) + " is " + std::to_string(values[i]);
    }
  }
  return "";
}

/** A tensor's memory of the host, in a run of the device's with a stretch around it that must stay as it is. */
class DeviceTensors {
 public:
  DeviceTensors(Device& device, CuStream stream) : device_(device), stream_(stream), memory_(device, stream) {}

  /** Null where there is no memory. */
  void* add(const void* from, size_t bytes) {
    auto* start = static_cast<char*>(memory_.allocate(bytes + 2 * GUARD));
    if (!start) {
      return nullptr;
    }
    const auto at = reinterpret_cast<uintptr_t>(start);
    device_.api().fill_bytes(at, PATTERN, bytes + 2 * GUARD, stream_);
    if (from && bytes > 0) {
      device_.api().copy_to_device(at + GUARD, from, bytes, stream_);
    }
    tensors_.push_back({at, bytes});
    return start + GUARD;
  }

  CudaStatus fetch(void* to, const void* from, size_t bytes) {
    return cuda_status(device_.api().copy_to_host(to, reinterpret_cast<uintptr_t>(from), bytes, stream_),
                       "cuMemcpyDtoHAsync");
  }

  /** Empty where nothing was written around any tensor, else what is wrong. The stream must be done. */
  std::string check_guards() {
    std::vector<unsigned char> guard(GUARD);
    for (size_t n = 0; n < tensors_.size(); n++) {
      for (const bool is_behind : {false, true}) {
        const CuDevicePtr at = tensors_[n].start + (is_behind ? GUARD + tensors_[n].bytes : 0);
        CudaStatus status = fetch(guard.data(), reinterpret_cast<void*>(at), GUARD);
        if (status.ok()) {
          status = cuda_status(device_.api().stream_synchronize(stream_), "cuStreamSynchronize");
        }
        if (!device_.noted(status).ok()) {
          return "reading what lies around a tensor: " + status.text;
        }
        for (unsigned char byte : guard) {
          if (byte != PATTERN) {
            return std::string("something was written ") + (is_behind ? "behind" : "before") + " tensor " +
                   std::to_string(n) + " of the call";
          }
        }
      }
    }
    return "";
  }

  const CudaStatus& status() const { return memory_.status(); }

 private:
  static constexpr size_t GUARD = 256;
  static constexpr unsigned char PATTERN = 0x5a;

  struct Tensor {
    CuDevicePtr start;
    size_t bytes;
  };

  Device& device_;
  CuStream stream_;
  DeviceWorkspace memory_;
  std::vector<Tensor> tensors_;
};

inline size_t bytes_of(const CallTensor& tensor) { return tensor.block->bytes; }

/** The tensors whole and as they lie. */
inline std::string run_on_device(Device& device, const HostKernels& kernels, const Call& call, const Description& d,
                          const Memory& memory, const Memory& results) {
  const ContextScope scope(device);
  StreamOwner stream(device);
  if (!scope.status().ok() || !stream.status().ok()) {
    return scope.status().text + stream.status().text;
  }
  DeviceTensors tensors(device, stream.get());
  Memory on_device, results_on_device;
  for (const CallTensor& tensor : call.tensors) {
    on_device.data[tensor.name] = tensors.add(memory.data[tensor.name], bytes_of(tensor));
  }
  for (const CallResult& result : call.results) {
    results_on_device.data[result.name] = tensors.add(nullptr, result.elements * sizeof(float));
  }
  if (!tensors.status().ok()) {
    return tensors.status().text;
  }
  CudaStatus status;
  {
    DeviceWorkspace workspace(device, stream.get());
    status = kernels.run(device, host_call(d, on_device, results_on_device), workspace, stream.get());
    if (!status.ok() && !workspace.status().ok()) {
      status = workspace.status();
    }
  }
  for (const CallResult& result : call.results) {
    if (status.ok()) {
      status = tensors.fetch(results.data[result.name], results_on_device.data[result.name],
                             result.elements * sizeof(float));
    }
  }
  const CudaStatus done =
      device.noted(cuda_status(device.api().stream_synchronize(stream.get()), "cuStreamSynchronize"));
  if (!status.ok() || !done.ok()) {
    return status.ok() ? done.text : status.text;
  }
  return tensors.check_guards();
}

/** As an op of TensorFlow's, all of them on one stream. */
inline std::string run_as_tensorflow(Device& device, const std::string& compute, const Call& call,
                                     const Description& d, const Memory& memory, const Memory& results) {
  const ContextScope scope(device);
  static auto* stream = new StreamOwner(device);
  OpOptions options;
  options.changed = static_cast<int>(DESCRIPTION_SIZE) - 1;
  options.value = compute == "float32" ? 0 : compute == "tensorfloat32" ? 1 : compute == "float16" ? 2 : 3;
  const std::string error = run_as_op(device, stream->get(), call, d, memory, results, options);
  return error.empty() && fake_tensorflow::live_tensors() != 0 ? "tensors are left behind" : error;
}

inline std::string run_on_host(Device& device, const HostKernels& kernels, const HostCall& call, int pieces) {
  HostCallOptions options;
  if (pieces > 0) {
    const Problem& p = call.problem;
    const auto bytes = [&](const Piece& piece) {
      const PieceCall part = piece_call(call, piece);
      return 2 * part.device_bytes + kernels.workspace_bytes(part.call);
    };
    options.limit = std::max(bytes({0, p.batch, 0, p.key_heads}) / pieces, bytes({0, p.batch, 0, 1}));
  }
  return run_host_call(device, call, kernels, options).text;
}

}  // namespace flash_attention
