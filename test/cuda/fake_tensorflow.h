// As much of TensorFlow's C API as kernels of the device "GPU" use, on the driver (the fake one, or a real one): tensors
// in device memory, filled by work that is queued on a stream of TensorFlow's own when the op runs, and temporary memory
// that is reused (spoilt) by work queued there as soon as it is given back. So what is not ordered with that stream shows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "addon/tensorflow_api.h"
#include "cuda/streams.h"

namespace flash_attention {

/** Behind TF_Tensor: what this points to is counted by TensorFlow and by the kernel. */
struct FakeTensor {
  int type = TF_FLOAT_TYPE;
  std::vector<int64_t> dims;
  void* data = nullptr;
  size_t bytes = 0;
  bool is_temporary = false;

  int64_t elements() const {
    int64_t product = 1;
    for (int64_t axis : dims) {
      product *= axis;
    }
    return product;
  }
};

/** Behind TF_Status. */
struct FakeStatus {
  int code = TF_OK_CODE;
  std::string text;
};

/** Behind TF_OpKernelContext: one run of an op. */
struct FakeContext {
  Device* device = nullptr;
  CuStream stream = nullptr;
  std::vector<FakeTensor> inputs, outputs;
  /** Bytes of temporary memory that there are. */
  size_t temporary_bytes = size_t{1} << 40;
  FakeStatus failure;
  std::vector<CuDevicePtr> blocks;

  /** Device memory that lasts until the context goes. */
  void* allocate(size_t bytes) {
    const ContextScope scope(*device);
    CuDevicePtr block = 0;
    if (device->api().memory_allocate(&block, bytes == 0 ? 1 : bytes) != cu::SUCCESS) {
      return nullptr;
    }
    blocks.push_back(block);
    return reinterpret_cast<void*>(static_cast<uintptr_t>(block));
  }

  ~FakeContext() {
    const ContextScope scope(*device);
    for (CuDevicePtr block : blocks) {
      device->api().memory_free(block);
    }
  }
};

namespace fake_tensorflow {

/** Whose tensors are given back: the API's functions are told no context then. One run at a time. */
inline FakeContext*& current() {
  static FakeContext* context = nullptr;
  return context;
}
inline int& live_tensors() {
  static int count = 0;
  return count;
}

inline FakeTensor* of(const TF_Tensor* tensor) {
  return const_cast<FakeTensor*>(reinterpret_cast<const FakeTensor*>(tensor));
}
inline FakeStatus* of(const TF_Status* status) {
  return const_cast<FakeStatus*>(reinterpret_cast<const FakeStatus*>(status));
}
inline FakeContext* of(TF_OpKernelContext* context) { return reinterpret_cast<FakeContext*>(context); }

inline TF_Tensor* handed_out(FakeTensor tensor) {
  live_tensors()++;
  return reinterpret_cast<TF_Tensor*>(new FakeTensor(std::move(tensor)));
}

inline void delete_tensor(TF_Tensor* tensor) {
  live_tensors()--;
  const std::unique_ptr<FakeTensor> given_back(of(tensor));
  if (given_back->is_temporary && given_back->data) {
    // Others are handed this memory at once, and what they do with it is queued.
    const FakeContext& context = *current();
    const ContextScope scope(*context.device);
    context.device->api().fill_bytes(reinterpret_cast<uintptr_t>(given_back->data), 0xff, given_back->bytes,
                                     context.stream);
  }
}

inline void get_input(TF_OpKernelContext* context, int n, TF_Tensor** tensor, TF_Status*) {
  *tensor = handed_out(of(context)->inputs[n]);
}

inline TF_Tensor* allocate_output(TF_OpKernelContext* context, int n, int type, const int64_t* dims, int rank,
                                  size_t bytes, TF_Status*) {
  FakeTensor tensor;
  tensor.type = type;
  tensor.dims.assign(dims, dims + rank);
  tensor.bytes = bytes;
  tensor.data = of(context)->allocate(bytes);
  of(context)->outputs[n] = tensor;
  return handed_out(tensor);
}

inline TF_Tensor* allocate_temporary(TF_OpKernelContext* context, int type, const int64_t* dims, int rank,
                                     TF_AllocatorAttributes* attributes, TF_Status* status) {
  FakeTensor tensor;
  tensor.type = type;
  tensor.dims.assign(dims, dims + rank);
  tensor.bytes = static_cast<size_t>(tensor.elements());
  if (attributes->on_host || tensor.bytes > of(context)->temporary_bytes) {
    *of(status) = {8, "out of memory"};
    return nullptr;
  }
  tensor.is_temporary = true;
  tensor.data = of(context)->allocate(tensor.bytes);
  return handed_out(tensor);
}

/** What kernels for GPUs use; the rest is null. */
inline TensorFlowApi api() {
  TensorFlowApi made;
  made.NewStatus = [] { return reinterpret_cast<TF_Status*>(new FakeStatus); };
  made.DeleteStatus = [](TF_Status* status) { delete of(status); };
  made.SetStatus = [](TF_Status* status, int code, const char* text) { *of(status) = {code, text}; };
  made.GetCode = [](const TF_Status* status) { return of(status)->code; };
  made.Message = [](const TF_Status* status) { return of(status)->text.c_str(); };
  made.DeleteTensor = delete_tensor;
  made.TensorType = [](const TF_Tensor* tensor) { return of(tensor)->type; };
  made.NumDims = [](const TF_Tensor* tensor) { return static_cast<int>(of(tensor)->dims.size()); };
  made.Dim = [](const TF_Tensor* tensor, int axis) { return of(tensor)->dims[axis]; };
  made.TensorElementCount = [](const TF_Tensor* tensor) { return of(tensor)->elements(); };
  made.TensorData = [](const TF_Tensor* tensor) { return of(tensor)->data; };
  made.NumInputs = [](TF_OpKernelContext* context) { return static_cast<int>(of(context)->inputs.size()); };
  made.NumOutputs = [](TF_OpKernelContext* context) { return static_cast<int>(of(context)->outputs.size()); };
  made.GetInput = get_input;
  made.OpKernelContext_Failure = [](TF_OpKernelContext* context, TF_Status* status) {
    of(context)->failure = *of(status);
  };
  made.AllocateOutput = allocate_output;
  made.AllocateTemp = allocate_temporary;
  return made;
}

}  // namespace fake_tensorflow
}  // namespace flash_attention
