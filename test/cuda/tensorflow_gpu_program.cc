// tensorflow_gpu_program FILE: runs the calls of dump_cases.ts as TensorFlow's ops on a GPU
// (kernels/addon/tensorflow_gpu_call.cc), on fake_tensorflow.h and the fake libcuda. Then failures. Writes its counts
// as one line of JSON.
#include <cstdio>

#include "addon/run_call.h"
#include "addon/tensorflow_gpu_call.h"
#include "fake_tensorflow.h"
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

/** A copy that TensorFlow has queued. */
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

void copy(void* data) {
  const std::unique_ptr<Copy> made(static_cast<Copy*>(data));
  std::memcpy(made->to, made->from, made->bytes);
}

size_t size_of(ElementType type) { return type == ElementType::boolean ? 1 : 4; }

int type_of(ElementType type) {
  return type == ElementType::int32 ? TF_INT32_TYPE : type == ElementType::boolean ? TF_BOOL_TYPE : TF_FLOAT_TYPE;
}

/** One op on one call. */
class OpRun {
 public:
  OpRun(Device& device, CuStream stream, const std::vector<double>& values, const Call& call)
      : values_(values), call_(call) {
    context_.cuda = &fake();
    context_.device = &device;
    context_.stream = stream;
    fake_tensorflow::current() = &context_;
  }

  FakeContext& context() { return context_; }
  bool is_ahead = false;

  std::string run(const Description& d, const Memory& memory, const Memory& results) {
    add_inputs(d, memory);
    context_.outputs.resize(d.kind == CallKind::forward ? 3 : d.kind == CallKind::append ? 0 : d.gradients());
    const TensorFlowApi api = fake_tensorflow::api();
    auto* context = reinterpret_cast<TF_OpKernelContext*>(&context_);
    d.kind == CallKind::append ? append_on_gpu(api, context) : attention_on_gpu(api, context);
    // The kernels may be ahead of what TensorFlow has queued before, or far behind.
    if (is_ahead) {
      fake().run_but(context_.stream);
    }
    // What TensorFlow's next kernels find, in the order of its stream alone.
    if (context_.failure.code == TF_OK_CODE) {
      int n = 0;
      for (int name = 0; name < TENSOR_NAMES; name++) {
        if (d.kind == CallKind::append ? name == K || name == V : results.data[name] != nullptr) {
          const bool is_append = d.kind == CallKind::append;
          const FakeTensor& output = is_append ? context_.inputs[places_[name]] : context_.outputs[n++];
          queue(is_append ? memory.data[name] : results.data[name], output.data, output.bytes);
        }
      }
    }
    const ContextScope scope(*context_.device);
    context_.device->api().stream_synchronize(context_.stream);
    return context_.failure.text;
  }

 private:
  void queue(void* to, const void* from, size_t bytes) {
    fake().queue(context_.stream, copy, new Copy{to, from, bytes});
  }

  void add_inputs(const Description& d, const Memory& memory) {
    words_.assign(values_.begin(), values_.end());
    FakeTensor words;
    words.type = TF_INT32_TYPE;
    words.dims = {static_cast<int64_t>(2 * words_.size())};
    words.data = words_.data();
    context_.inputs.push_back(words);
    for (ElementType type : {ElementType::int32, ElementType::boolean, ElementType::float32}) {
      for (const CallTensor& tensor : call_.tensors) {
        const int name = static_cast<int>(tensor.name);
        if (d.has(name) && element_type(name) == type) {
          places_[name] = context_.inputs.size();
          context_.inputs.push_back(input(type, tensor.elements, memory.data[name]));
        }
      }
    }
  }

  /** Integers stay in the host's memory; what else there is arrives in the device's, some time. */
  FakeTensor input(ElementType type, int64_t elements, void* data) {
    FakeTensor made;
    made.type = type_of(type);
    made.dims = {elements};
    made.bytes = static_cast<size_t>(elements) * size_of(type);
    made.data = data;
    if (type != ElementType::int32) {
      made.data = context_.allocate(made.bytes);
      queue(made.data, data, made.bytes);
    }
    return made;
  }

  const std::vector<double>& values_;
  const Call& call_;
  FakeContext context_;
  std::vector<double> words_;
  size_t places_[TENSOR_NAMES] = {};
};

std::string run_op(Device& device, CuStream stream, const Call& call, const Description& d, const Memory& memory,
                   const Memory& results, bool is_ahead, size_t temporary_bytes = size_t{1} << 40) {
  std::string error;
  {
    OpRun op(device, stream, call.description, call);
    op.context().temporary_bytes = temporary_bytes;
    op.is_ahead = is_ahead;
    error = op.run(d, memory, results);
  }
  const std::string violations = fake().violations();
  return !error.empty()                         ? error :
         !violations.empty()                    ? violations :
         fake_tensorflow::live_tensors() != 0   ? "tensors are left behind" :
         fake().used() != 0                     ? "device memory is left behind" :
         fake().contexts() != 0                 ? "a context is left current" :
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
