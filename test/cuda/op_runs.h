// How a call of dump_cases.ts is run as an op of TensorFlow on a GPU.
#pragma once

#include <functional>

#include "addon/tensorflow_gpu_call.h"
#include "fake_tensorflow.h"
#include "sanitizers/call_file.h"

namespace flash_attention {

struct OpOptions {
  /** Bytes of temporary memory that TensorFlow has. */
  size_t temporary_bytes = size_t{1} << 40;
  /** The place of a number in the description, and what it is to be; −1: none. */
  int changed = -1;
  double value = 0;
  /** Called when the op has returned. */
  std::function<void()> queued;
};

/** Takes the call's tensors to the device by a stream of TensorFlow's, runs the op, and fetches the results by that. */
class OpRun {
 public:
  OpRun(Device& device, CuStream stream, const Call& call, const OpOptions& options)
      : call_(call), options_(options), scope_(device), api_(device.api()) {
    context_.device = &device;
    context_.stream = stream;
    context_.temporary_bytes = options.temporary_bytes;
    fake_tensorflow::current() = &context_;
  }

  std::string run(const Description& d, const Memory& memory, const Memory& results) {
    add_inputs(d, memory);
    const bool is_append = d.kind == CallKind::append;
    context_.outputs.resize(d.kind == CallKind::forward ? 3 : is_append ? 0 : d.gradients());
    const TensorFlowApi api = fake_tensorflow::api();
    auto* context = reinterpret_cast<TF_OpKernelContext*>(&context_);
    is_append ? append_on_gpu(api, context) : attention_on_gpu(api, context);
    if (options_.queued) {
      options_.queued();
    }
    if (context_.failure.code == TF_OK_CODE) {
      // What TensorFlow's next kernels find, in the order of its stream alone.
      int n = 0;
      for (int name = 0; name < TENSOR_NAMES; name++) {
        if (is_append ? name == K || name == V : results.data[name] != nullptr) {
          const FakeTensor& output = is_append ? context_.inputs[places_[name]] : context_.outputs[n++];
          fetch(is_append ? memory.data[name] : results.data[name], output);
        }
      }
    }
    check(api_.stream_synchronize(context_.stream), "cuStreamSynchronize");
    return context_.failure.code != TF_OK_CODE ? context_.failure.text : error_;
  }

 private:
  void check(CuResult result, const char* call) {
    if (error_.empty()) {
      error_ = context_.device->noted(cuda_status(result, call)).text;
    }
  }

  void fetch(void* to, const FakeTensor& from) {
    if (from.bytes > 0) {
      check(api_.copy_to_host(to, reinterpret_cast<uintptr_t>(from.data), from.bytes, context_.stream),
            "cuMemcpyDtoHAsync of TensorFlow's");
    }
  }

  void add_inputs(const Description& d, const Memory& memory) {
    words_ = call_.description;
    if (options_.changed >= 0) {
      words_[options_.changed] = options_.value;
    }
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
    made.type = type == ElementType::int32 ? TF_INT32_TYPE : type == ElementType::boolean ? TF_BOOL_TYPE : TF_FLOAT_TYPE;
    made.dims = {elements};
    made.bytes = static_cast<size_t>(elements) * (type == ElementType::boolean ? 1 : 4);
    made.data = data;
    if (type != ElementType::int32) {
      made.data = context_.allocate(made.bytes);
      if (made.bytes > 0) {
        check(api_.copy_to_device(reinterpret_cast<uintptr_t>(made.data), data, made.bytes, context_.stream),
              "cuMemcpyHtoDAsync of TensorFlow's");
      }
    }
    return made;
  }

  const Call& call_;
  const OpOptions& options_;
  const ContextScope scope_;
  const DriverApi& api_;
  FakeContext context_;
  std::vector<double> words_;
  size_t places_[TENSOR_NAMES] = {};
  std::string error_;
};

inline std::string run_as_op(Device& device, CuStream stream, const Call& call, const Description& d,
                             const Memory& memory, const Memory& results, const OpOptions& options) {
  return OpRun(device, stream, call, options).run(d, memory, results);
}

}  // namespace flash_attention
