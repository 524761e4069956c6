#include "tensorflow_op.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <mutex>
#include <vector>

#include "device_call.h"
#include "tensorflow_api.h"
#include "tensorflow_call.h"
#include "tensorflow_gpu_call.h"

namespace flash_attention {
namespace {

// The number is the description's format: copies of the addon of different versions do not take each other's calls.
static_assert(DESCRIPTION_FORMAT == 3, "the ops are named after it");
constexpr char FORWARD[] = "TfjsFlashAttention3";
constexpr char BACKWARD[] = "TfjsFlashAttention3Grad";
constexpr char APPEND[] = "TfjsFlashAttention3CacheAppend";

/** Filled in once, then only read: kernels have no other way to it. */
TensorFlowApi api;

/** Holds a lock that other copies of this addon in the process respect too, which share none of its memory. */
class LockAmongCopies {
 public:
  explicit LockAmongCopies(const std::string& file) : handle_(open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (handle_ >= 0) {
      flock(handle_, LOCK_EX);
    }
  }
  ~LockAmongCopies() {
    if (handle_ >= 0) {
      close(handle_);
    }
  }
  LockAmongCopies(const LockAmongCopies&) = delete;
  LockAmongCopies& operator=(const LockAmongCopies&) = delete;

 private:
  int handle_;
};

std::string error_of(TF_Status* status) {
  return api.GetCode(status) == TF_OK_CODE ? "" : api.Message(status);
}

/**
 * Whether a copy of this addon was here before: TensorFlow ends the process when an op is registered twice.
 * @param device looked for among the devices of its kernels
 */
bool is_registered(const char* op, const char* device, TF_Status* status) {
  TF_Buffer* kernels = api.GetRegisteredKernelsForOp(op, status);
  // A message of kernels, whose devices' names stand there as they are.
  const std::string text =
      kernels != nullptr ? std::string(static_cast<const char*>(kernels->data), kernels->length) : "";
  const bool found = text.find(device) != std::string::npos;
  if (kernels != nullptr) {
    api.DeleteBuffer(kernels);
  }
  return found;
}

/** Shapes are known only from the description's contents. */
void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  api.ShapeInferenceContextSetUnknownShape(context, status);
}

void compute_attention(void*, TF_OpKernelContext* context) { attention_on_cpu(api, context); }

void compute_append(void*, TF_OpKernelContext* context) { append_on_cpu(api, context); }

void compute_attention_on_gpu(void*, TF_OpKernelContext* context) { attention_on_gpu(api, context); }

void compute_append_on_gpu(void*, TF_OpKernelContext* context) { append_on_gpu(api, context); }

struct Op {
  const char* name;
  std::vector<const char*> outputs;
  void (*on_cpu)(void*, TF_OpKernelContext*);
  void (*on_gpu)(void*, TF_OpKernelContext*);
};

/**
 * All ops take the same inputs. Lists of one type each, not one of several types: tfjs-node can set their lengths, but
 * no attribute that is a list of types. What differs from call to call is in the description, since TensorFlow keeps a
 * kernel for each set of attributes for ever.
 */
void define(const Op& op, TF_Status* status) {
  TF_OpDefinitionBuilder* builder = api.NewOpDefinitionBuilder(op.name);
  for (const char* attr : {"I: int >= 0", "M: int >= 0", "F: int >= 1"}) {
    api.OpDefinitionBuilderAddAttr(builder, attr);
  }
  for (const char* input : {"description: int32", "integers: I * int32", "booleans: M * bool", "floats: F * float"}) {
    api.OpDefinitionBuilderAddInput(builder, input);
  }
  if (op.name == BACKWARD) {
    api.OpDefinitionBuilderAddAttr(builder, "G: int >= 1");
  }
  for (const char* output : op.outputs) {
    api.OpDefinitionBuilderAddOutput(builder, output);
  }
  // It writes into its inputs, and so must not be left out for having no outputs.
  api.OpDefinitionBuilderSetIsStateful(builder, op.name == APPEND);
  api.OpDefinitionBuilderSetShapeInferenceFunction(builder, unknown_shapes);
  api.RegisterOpDefinition(builder, status);
}

void add_kernel(const char* op, const char* device, void (*compute)(void*, TF_OpKernelContext*), TF_Status* status) {
  TF_KernelBuilder* builder = api.NewKernelBuilder(op, device, nullptr, compute, nullptr);
  // On a GPU what the host reads must lie in its memory, and there TensorFlow has integers anyway.
  for (const char* input : {"description", "integers"}) {
    api.KernelBuilder_HostMemory(builder, input);
  }
  api.RegisterKernelBuilder(op, builder, status);
}

const Op OPS[] = {
    {FORWARD, {"output: float", "lse: float", "lse_tail: float"}, compute_attention, compute_attention_on_gpu},
    {BACKWARD, {"gradients: G * float"}, compute_attention, compute_attention_on_gpu},
    {APPEND, {}, compute_append, compute_append_on_gpu},
};

/** @param has_gpu set to what TensorFlow says of kernels for its GPUs, ours or those of a copy */
std::string register_all(bool with_gpu, bool* has_gpu) {
  const std::string missing = find_tensorflow(&api);
  if (!missing.empty()) {
    return missing;
  }
  // A worker that ends closes its addons. TensorFlow will go on calling this one.
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&register_tensorflow_ops), &self) == 0 ||
      dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) == nullptr) {
    return "the addon cannot be kept in memory";
  }
  const LockAmongCopies lock(api.library);
  TF_Status* status = api.NewStatus();
  std::string error;
  for (const Op& op : OPS) {
    if (error.empty() && !is_registered(op.name, "CPU", status)) {
      define(op, status);
      if ((error = error_of(status)).empty()) {
        add_kernel(op.name, "CPU", op.on_cpu, status);
        error = error_of(status);
      }
    }
    if (error.empty() && with_gpu && !is_registered(op.name, "GPU", status)) {
      add_kernel(op.name, "GPU", op.on_gpu, status);
      error = error_of(status);
    }
  }
  *has_gpu = error.empty() && is_registered(APPEND, "GPU", status);
  api.DeleteStatus(status);
  return error;
}

}  // namespace

std::string register_tensorflow_ops(bool with_gpu, bool* has_gpu) {
  static std::mutex mutex;
  static bool is_done = false, is_gpu_tried = false, is_on_gpu = false;
  const std::lock_guard<std::mutex> hold(mutex);
  std::string error;
  const bool tries_gpu = with_gpu && !is_gpu_tried;
  if (!is_done || tries_gpu) {
    error = register_all(tries_gpu && cuda_facts().problem.empty(), &is_on_gpu);
    is_done = error.empty();
    is_gpu_tried = is_gpu_tried || (is_done && tries_gpu);
  }
  *has_gpu = is_on_gpu;
  return error;
}

}  // namespace flash_attention
