// runner [--compute=float32] [--way=device|host] [--pieces=N] [--repeat=N] [--match=TEXT] [--json=FILE] FILE…: calls of
// dump_cases.ts on a CUDA device, judged as test/sanitizers/runner.cc judges those of CPUs; needs the driver and nothing
// else. First a kernel of probe.cu, which shows that images are found and loaded.
//   --way=device  tensors are copied whole, and the kernels get them as they lie: as TensorFlow's are
//   --way=host    by host_call.cc; with --pieces=N in as little memory as 1/N of what the call takes
//   --repeat=N    runs each call N times, and wants the same bits
// Ends with a table, a line for each kind of call, and one line of JSON.
#include <cmath>
#include <cstdio>
#include <map>

#include "cuda/memory.h"
#include "cuda/streams.h"
#include "addon/described_call.h"
#include "door.h"
#include "sanitizers/call_runs.h"

namespace flash_attention {
namespace {

struct Options {
  std::string compute = "float32", way = "device", match, json;
  int pieces = 0, repeat = 1;
  std::vector<std::string> files;
};

struct Row {
  int calls = 0, failures = 0;
  /** Largest error, as a share of what is allowed. */
  double worst = 0;
  std::string worst_call;
};

bool fail(const std::string& what, const std::string& error) {
  std::printf("FAILED  %s: %s\n", what.c_str(), error.c_str());
  return false;
}

struct ProbeParams {
  CuDevicePtr values;
  int64_t count;
  float factor;
};

/** Runs both kernels of probe.cu. */
bool run_probe(Device& device) {
  constexpr int64_t COUNT = 10000;
  const ContextScope scope(device);
  StreamOwner stream(device);
  PinnedBuffer buffer(device, COUNT * sizeof(float));
  DeviceWorkspace workspace(device, stream.get());
  void* memory = workspace.allocate(COUNT * sizeof(float));
  if (!memory || !buffer.status().ok()) {
    return fail("probe", workspace.status().text + buffer.status().text);
  }
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
      return fail(name, status.text);
    }
    if (std::string(name) == "flash_probe_architecture") {
      std::printf("code of compute capability %.1f runs\n", values[0] / 100);
    }
  }
  for (int64_t i = 0; i < COUNT; i++) {
    if (values[i] != 0.5f * static_cast<float>(i)) {
      return fail("flash_probe", "value " + std::to_string(i) + " is " + std::to_string(values[i]));
    }
  }
  return true;
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

  /** Whether nothing was written around any tensor. The stream must be done. */
  bool are_guards_whole() {
    std::vector<unsigned char> guard(GUARD);
    for (const auto& tensor : tensors_) {
      for (CuDevicePtr at : {tensor.start, tensor.start + GUARD + tensor.bytes}) {
        if (device_.api().copy_to_host(guard.data(), at, GUARD, stream_) != cu::SUCCESS ||
            device_.api().stream_synchronize(stream_) != cu::SUCCESS) {
          return false;
        }
        for (unsigned char byte : guard) {
          if (byte != PATTERN) {
            return false;
          }
        }
      }
    }
    return true;
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

size_t bytes_of(const CallTensor& tensor) { return tensor.block->bytes; }

/** The tensors whole and as they lie. */
std::string run_on_device(Device& device, const HostKernels& kernels, const Call& call, const Description& d,
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
  return tensors.are_guards_whole() ? "" : "something was written outside of a tensor";
}

std::string run_on_host(Device& device, const HostKernels& kernels, const HostCall& call, int pieces) {
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

/** Largest error as a share of what is allowed; 0 where nothing is. */
double worst_of(const Call& call, const Run& made) {
  double worst = 0;
  for (size_t n = 0; n < call.results.size() && n < made.results.size(); n++) {
    const auto* actual = static_cast<const float*>(made.results[n].block->data);
    const CallResult& result = call.results[n];
    for (size_t i = 0; i < result.expected.size(); i++) {
      if (std::isfinite(result.expected[i]) && result.tolerance > 0) {
        worst = std::max(worst, std::fabs(actual[i] - result.expected[i]) / result.tolerance);
      }
    }
  }
  return worst;
}

bool run_file(Device& device, const Options& options, const HostKernels& kernels, const std::string& path,
              std::map<std::string, Row>* rows) {
  CallFile file(path.c_str());
  Call call;
  Run before;
  while (file.next(&call)) {
    std::string kind;
    const auto runner = [&](const Description& d, const Memory& memory, const Memory& results) -> std::string {
      kind = d.kind == CallKind::forward ? "forward" : d.kind == CallKind::backward ? "backward" : "append";
      if (d.kind == CallKind::append || (d.kind == CallKind::forward && d.output_elements() == 0)) {
        return "";
      }
      return options.way == "host" ? run_on_host(device, kernels, host_call(d, memory, results), options.pieces) :
                                     run_on_device(device, kernels, call, d, memory, results);
    };
    // By a case's name, so that a backward call has its forward call before it.
    if (call.name.find(options.match) == std::string::npos) {
      continue;
    }
    Run made = run_with(call, &before, runner);
    if (kind == "append") {
      continue;
    }
    std::string error = judge(call, made);
    for (int again = 1; again < options.repeat && error.empty(); again++) {
      error = same_bits(made, run_with(call, &before, runner)) ? "" : "other bits when it ran again";
    }
    Row& row = (*rows)[kind];
    row.calls++;
    if (!error.empty()) {
      row.failures++;
      fail(call.name, error);
    }
    const double worst = made.error.empty() ? worst_of(call, made) : 0;
    if (worst > row.worst) {
      row.worst = worst;
      row.worst_call = call.name;
    }
    before = std::move(made);
    Device* still = nullptr;
    const CudaStatus status = Device::open(device.info().ordinal, &still);
    if (!status.ok()) {
      return fail("all that follow", status.text);
    }
  }
  return true;
}

bool read_options(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; i++) {
    const std::string argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals < argument.size() ? argument.substr(equals + 1) : "";
    if (name == "--compute") {
      options->compute = value;
    } else if (name == "--way" && (value == "device" || value == "host")) {
      options->way = value;
    } else if (name == "--pieces") {
      options->pieces = std::atoi(value.c_str());
    } else if (name == "--repeat") {
      options->repeat = std::max(1, std::atoi(value.c_str()));
    } else if (name == "--match") {
      options->match = value;
    } else if (name == "--json") {
      options->json = value;
    } else if (name.compare(0, 2, "--") == 0) {
      return false;
    } else {
      options->files.push_back(argument);
    }
  }
  return true;
}

int main_of(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  Options options;
  if (!read_options(count, arguments, &options)) {
    std::fprintf(stderr, "runner [--compute=float32|tensorfloat32|float16|bfloat16] [--way=device|host] [--pieces=N] "
                         "[--repeat=N] [--match=TEXT] [--json=FILE] FILE...\n");
    return 2;
  }
  Device* device = nullptr;
  const CudaStatus status = selected_device(&device);
  if (!status.ok()) {
    fail("the device", status.text);
    return 1;
  }
  const DeviceInfo& info = device->info();
  std::printf("%s, compute capability %d.%d, driver for CUDA %s, kernels by CUDA %s, context events %s\n",
              info.name.c_str(), info.major, info.minor, cuda_version_text(cuda_driver().version).c_str(),
              cuda_version_text(embedded_images().toolkit).c_str(),
              cuda_driver().has_context_events() ? "yes" : "no");
  bool is_well = run_probe(*device);
  std::map<std::string, Row> rows;
  HostKernels kernels;
  if (!options.files.empty()) {
    if (!HAS_DOOR) {
      return fail("the calls", "this runner was built without kernels/cuda/attention.h") ? 0 : 1;
    }
    if (!find_kernels(*device, options.compute, &kernels)) {
      return fail("the calls", "there is no compute type " + options.compute) ? 0 : 1;
    }
    for (const std::string& path : options.files) {
      is_well = is_well && run_file(*device, options, kernels, path, &rows);
    }
    const ContextScope scope(*device);
    release_staging();
  }
  std::printf("%-10s %-14s %-7s %6s %7s  %s\n", "kind", "compute type", "way", "calls", "failed",
              "largest error, as a share of the allowed");
  std::string json;
  int calls = 0, failures = 0;
  for (const auto& [kind, row] : rows) {
    std::printf("%-10s %-14s %-7s %6d %7d  %.3f  %s\n", kind.c_str(), options.compute.c_str(), options.way.c_str(),
                row.calls, row.failures, row.worst, row.worst_call.c_str());
    calls += row.calls;
    failures += row.failures;
    json += (json.empty() ? "\"" : ", \"") + kind + "\": {\"calls\": " + std::to_string(row.calls) +
            ", \"failures\": " + std::to_string(row.failures) + ", \"worst\": " +
            (std::isfinite(row.worst) ? std::to_string(row.worst) : "null") + "}";
  }
  is_well = is_well && failures == 0 && (calls > 0 || options.files.empty());
  json = "{\"device\": \"" + info.name + "\", \"driver\": " + std::to_string(cuda_driver().version) +
         ", \"compute\": \"" + options.compute + "\", \"way\": \"" + options.way + "\", \"calls\": " +
         std::to_string(calls) + ", \"failures\": " + std::to_string(failures) + ", \"ok\": " +
         (is_well ? "true" : "false") + (json.empty() ? "" : ", ") + json + "}";
  std::printf("%s\n", json.c_str());
  if (!options.json.empty()) {
    if (std::FILE* file = std::fopen(options.json.c_str(), "a")) {
      std::fprintf(file, "%s\n", json.c_str());
      std::fclose(file);
    }
  }
  return is_well ? 0 : 1;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
