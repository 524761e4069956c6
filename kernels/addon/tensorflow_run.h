// A run of an op's kernel, whichever device it is for: what TensorFlow hands over, read and checked, and memory for its
// results. Part of tensorflow_call.h.
#pragma once

#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../cpu/attention.h"
#include "description.h"
#include "tensorflow_api.h"

namespace flash_attention {

/** What ends a run: handed to TensorFlow as text. */
struct Failure {
  int code;
  std::string text;
};

class StatusHolder {
 public:
  explicit StatusHolder(const TensorFlowApi& api) : api_(api), status_(api.NewStatus()) {}
  ~StatusHolder() { api_.DeleteStatus(status_); }
  StatusHolder(const StatusHolder&) = delete;
  StatusHolder& operator=(const StatusHolder&) = delete;

  TF_Status* get() { return status_; }
  void check() const {
    if (api_.GetCode(status_) != TF_OK_CODE) {
      throw Failure{api_.GetCode(status_), api_.Message(status_)};
    }
  }

 private:
  const TensorFlowApi& api_;
  TF_Status* status_;
};

struct TensorDeleter {
  const TensorFlowApi* api;
  void operator()(TF_Tensor* tensor) const { api->DeleteTensor(tensor); }
};
using TensorHolder = std::unique_ptr<TF_Tensor, TensorDeleter>;

/** Memory of a call from TensorFlow's allocator: the host's, or that of the kernel's device. */
class TemporaryTensors : public Workspace {
 public:
  enum class Place : unsigned char { device = 0, host = 1 };

  TemporaryTensors(const TensorFlowApi& api, TF_OpKernelContext* context, Place place)
      : api_(api), context_(context), place_(place) {}

  void* allocate(size_t bytes) override {
    try {
      // Room to begin at a multiple of it, whatever the allocator's own alignment.
      const int64_t dims[] = {static_cast<int64_t>(bytes + ALIGNMENT)};
      StatusHolder status(api_);
      TF_AllocatorAttributes attributes = {sizeof(TF_AllocatorAttributes), static_cast<unsigned char>(place_)};
      TensorHolder tensor(api_.AllocateTemp(context_, TF_UINT8_TYPE, dims, 1, &attributes, status.get()), {&api_});
      status.check();
      const auto at = reinterpret_cast<uintptr_t>(api_.TensorData(tensor.get()));
      tensors_.push_back(std::move(tensor));
      return at == 0 ? nullptr : reinterpret_cast<void*>((at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    } catch (...) {
      return nullptr;
    }
  }

 private:
  /** What kernels for devices want; those for CPUs want less. */
  static constexpr uintptr_t ALIGNMENT = 256;

  const TensorFlowApi& api_;
  TF_OpKernelContext* context_;
  const Place place_;
  std::vector<TensorHolder> tensors_;
};

class Run {
 public:
  Run(const TensorFlowApi& api, TF_OpKernelContext* context) : api_(api), context_(context) {}

  /** Inputs in their order: the description, integers, booleans, floats. */
  void read(bool is_append) {
    const int count = api_.NumInputs(context_);
    StatusHolder status(api_);
    for (int n = 0; n < count; n++) {
      TF_Tensor* tensor = nullptr;
      api_.GetInput(context_, n, &tensor, status.get());
      status.check();
      inputs_.emplace_back(tensor, TensorDeleter{&api_});
    }
    double values[DESCRIPTION_SIZE];
    const size_t words = 2 * DESCRIPTION_SIZE;
    if (count == 0 || api_.TensorElementCount(inputs_[0].get()) != static_cast<int64_t>(words)) {
      throw Failure{TF_INVALID_ARGUMENT_CODE, "flashAttention: the description of the call has another length"};
    }
    std::memcpy(values, api_.TensorData(inputs_[0].get()), sizeof(values));
    require(read_description(values, DESCRIPTION_SIZE, &description));
    if ((description.kind == CallKind::append) != is_append || description.tensors() != count - 1) {
      throw Failure{TF_INVALID_ARGUMENT_CODE, "flashAttention: the description is that of another call"};
    }
    int next = 1;
    for (ElementType type : {ElementType::int32, ElementType::boolean, ElementType::float32}) {
      for (int name = 0; name < TENSOR_NAMES; name++) {
        if (description.has(name) && element_type(name) == type) {
          places_[name] = next++;
          elements[name] = take(name, type);
        }
      }
    }
    require(check_elements(description, elements));
  }

  /** Results in memory of TensorFlow: outputs, or gradients shaped as what they are the gradients of. */
  Memory allocate_results() {
    Memory results;
    int index = 0;
    const auto add = [&](int name, const int64_t* dims, int rank, int64_t elements) {
      if (index >= api_.NumOutputs(context_)) {
        throw Failure{TF_INVALID_ARGUMENT_CODE, "flashAttention: the op has too few outputs"};
      }
      StatusHolder status(api_);
      outputs_.emplace_back(
          api_.AllocateOutput(context_, index++, TF_FLOAT_TYPE, dims, rank, elements * sizeof(float), status.get()),
          TensorDeleter{&api_});
      status.check();
      results.data[name] = api_.TensorData(outputs_.back().get());
    };
    if (description.kind == CallKind::forward) {
      add(OUTPUT, description.output_shape, description.output_rank, description.output_elements());
      for (int name : {LSE, LSE_TAIL}) {
        add(name, description.lse_shape, description.lse_rank, description.lse_elements());
      }
    }
    for (int name = 0; name < TENSOR_NAMES; name++) {
      if (description.wants(name)) {
        const TF_Tensor* like = inputs_[places_[name]].get();
        std::vector<int64_t> dims(api_.NumDims(like));
        for (size_t axis = 0; axis < dims.size(); axis++) {
          dims[axis] = api_.Dim(like, static_cast<int>(axis));
        }
        add(name, dims.data(), static_cast<int>(dims.size()), api_.TensorElementCount(like));
      }
    }
    if (index != api_.NumOutputs(context_)) {
      throw Failure{TF_INVALID_ARGUMENT_CODE, "flashAttention: the op has too many outputs"};
    }
    return results;
  }

  static void require(const std::string& error, int code = TF_INVALID_ARGUMENT_CODE) {
    if (!error.empty()) {
      throw Failure{code, "flashAttention: " + error};
    }
  }

  Description description;
  /** Where the tensors are, and how many elements they have. */
  Memory memory;
  int64_t elements[TENSOR_NAMES] = {};

 private:
  int64_t take(int name, ElementType type) {
    const TF_Tensor* tensor = inputs_[places_[name]].get();
    const int expected = type == ElementType::int32   ? TF_INT32_TYPE :
                         type == ElementType::boolean ? TF_BOOL_TYPE :
                                                        TF_FLOAT_TYPE;
    if (api_.TensorType(tensor) != expected) {
      throw Failure{TF_INVALID_ARGUMENT_CODE,
                    std::string("flashAttention: expected another type of tensor for ") + tensor_name(name)};
    }
    memory.data[name] = api_.TensorData(tensor);
    return api_.TensorElementCount(tensor);
  }

  const TensorFlowApi& api_;
  TF_OpKernelContext* context_;
  std::vector<TensorHolder> inputs_, outputs_;
  int places_[TENSOR_NAMES] = {};
};

/** Nothing is thrown into TensorFlow. */
inline void guarded(const TensorFlowApi& api, TF_OpKernelContext* context, const std::function<void()>& body) {
  int code = TF_INTERNAL_CODE;
  std::string text;
  try {
    body();
    return;
  } catch (const Failure& failure) {
    code = failure.code;
    text = failure.text;
  } catch (const std::exception& error) {
    text = std::string("flashAttention: ") + error.what();
  }
  TF_Status* status = api.NewStatus();
  api.SetStatus(status, code, text.c_str());
  api.OpKernelContext_Failure(context, status);
  api.DeleteStatus(status);
}

}  // namespace flash_attention
