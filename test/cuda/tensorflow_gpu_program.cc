// tensorflow_gpu_program FILE: runs the calls of dump_cases.ts as TensorFlow's ops on a GPU
// (kernels/addon/tensorflow_gpu_call.cc), on fake_tensorflow.h and the fake libcuda. Then failures. Writes its counts
// as one line of JSON.
#include <cstdio>

#include "addon/run_call.h"
#include "fake_cuda.h"
#include "op_runs.h"
#include "sanitizers/call_runs.h"

namespace flash_attention {
namespace {

struct Counts {
  int calls = 0, appends = 0, checks = 0, failures = 0;
};

Counts counts;

const FakeCuda& fake() {
  static const FakeCuda it;
  return it;
}

void expect(bool ok, const std::string& what) {
  counts.checks++;
  if (!ok) {
    counts.failures++;
    std::printf("FAILED  %s\n", what.c_str());
  }
}

std::string run_op(Device& device, CuStream stream, const Call& call, const Description& d, const Memory& memory,
                   const Memory& results, bool is_ahead, size_t temporary_bytes = size_t{1} << 40) {
  OpOptions options;
  options.temporary_bytes = temporary_bytes;
  if (is_ahead) {
    options.queued = [stream] { fake().run_but(stream); };
  }
  const std::string error = run_as_op(device, stream, call, d, memory, results, options);
  const std::string violations = fake().violations();
  return !error.empty()                       ? error :
         !violations.empty()                  ? violations :
         fake_tensorflow::live_tensors() != 0 ? "tensors are left behind" :
         fake().used() != 0                   ? "device memory is left behind" :
         fake().contexts() != 0               ? "a context is left current" :
                                                "";
}

void run_calls(Device& device, CuStream stream, const char* path, bool is_ahead) {
  CallFile file(path);
  Call call;
  Run before;
  while (file.next(&call)) {
    const int64_t had = call_counts().cuda + call_counts().tensorflow;
    fake().configure("pageable=1");
    Run made = run_with(call, &before, [&](const Description& d, const Memory& memory, const Memory& results) {
      counts.appends += !is_ahead && d.kind == CallKind::append;
      return run_op(device, stream, call, d, memory, results, is_ahead);
    });
    counts.calls += !is_ahead;
    const std::string error = judge(call, made);
    expect(error.empty(), call.name + ": " + error);
    expect(call_counts().cuda + call_counts().tensorflow > had, call.name + ": not counted");
    before = std::move(made);
  }
}

/** The first forward call with sequences, so that everything is copied that can be. */
bool find_call(const char* path, Call* call) {
  CallFile file(path);
  while (file.next(call)) {
    Description d;
    if (read_description(call->description.data(), call->description.size(), &d).empty() &&
        d.kind == CallKind::forward && d.has(SEQUENCES) && d.output_elements() > 0) {
      return true;
    }
  }
  return false;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/** Whatever fails comes back as TensorFlow's own error, and nothing is lost. */
void run_failures(Device& device, CuStream stream, const char* path) {
  Call call;
  expect(find_call(path, &call), "a call with sequences");
  const auto attempt = [&](const std::string& settings, size_t temporary_bytes) {
    fake().configure((settings + ",pageable=1").c_str());
    Run made = run_with(call, nullptr, [&](const Description& d, const Memory& memory, const Memory& results) {
      return run_op(device, stream, call, d, memory, results, false, temporary_bytes);
    });
    // A lost device takes nothing back.
    const bool is_lost = contains(made.error, "lost") || contains(made.error, "CUDA_ERROR_ILLEGAL_ADDRESS");
    expect(fake_tensorflow::live_tensors() == 0 && fake().contexts() == 0 && (is_lost || fake().used() == 0),
           settings + ": something is left behind");
    return made.error.empty() ? judge(call, made) : made.error;
  };
  const size_t enough = size_t{1} << 40;
  expect(attempt("", enough).empty(), "the sample");
  expect(contains(attempt("", 100), "flashAttention: TensorFlow has no memory on the GPU"), "no temporary memory");
  const std::vector<const char*> with_events = {"cuEventCreate", "cuCtxRecordEvent", "cuStreamWaitEvent",
                                                "cuEventRecord", "cuCtxWaitEvent"};
  std::vector<const char*> names = {"cuPointerGetAttribute", "cuMemcpyHtoDAsync"};
  if (cuda_driver().has_context_events()) {
    names.insert(names.end(), with_events.begin(), with_events.end());
  } else {
    names.push_back("cuCtxSynchronize");
  }
  for (const char* name : names) {
    const std::string error = attempt("fail=" + std::string(name) + ":1", enough);
    expect(contains(error, "flashAttention: ") && contains(error, name), std::string(name) + " fails: " + error);
  }
  expect(attempt("", enough).empty(), "the sample after failures");
  const std::string lost = attempt("fail=cuMemcpyHtoDAsync:700", enough);
  expect(contains(lost, "CUDA_ERROR_ILLEGAL_ADDRESS"), "a lost device: " + lost);
  const std::string after = attempt("", enough);
  expect(contains(after, "was lost to this process"), "after that: " + after);
}

int main_of(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  if (count != 2) {
    std::fprintf(stderr, "tensorflow_gpu_program FILE\n");
    return 2;
  }
  Device* device = nullptr;
  const CudaStatus status = selected_device(&device);
  expect(status.ok(), status.text);
  if (status.ok()) {
    CuStream stream = nullptr;
    {
      const ContextScope scope(*device);
      device->api().stream_create(&stream, cu::STREAM_NON_BLOCKING);
    }
    for (bool is_ahead : {false, true}) {
      run_calls(*device, stream, arguments[1], is_ahead);
    }
    run_failures(*device, stream, arguments[1]);
  }
  std::printf("{\"calls\": %d, \"appends\": %d, \"checks\": %d, \"failures\": %d}\n", counts.calls, counts.appends,
              counts.checks, counts.failures);
  return counts.failures > 0 || counts.calls == 0 ? 1 : 0;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
