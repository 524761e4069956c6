// The part of TensorFlow's C API that is used here (tensorflow/c/{tf_status,tf_tensor,ops,kernels}.h), found in the
// TensorFlow that the process has already loaded. Nothing is linked and none of its headers is needed: types are opaque
// but for the two whose layout the API fixes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

extern "C" {
struct TF_Status;
struct TF_Tensor;
struct TF_Buffer {
  const void* data;
  size_t length;
  void (*data_deallocator)(void* data, size_t length);
};
struct TF_AllocatorAttributes {
  size_t struct_size;
  unsigned char on_host;
};
struct TF_OpDefinitionBuilder;
struct TF_ShapeInferenceContext;
struct TF_KernelBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
}

namespace flash_attention {

/** TF_Code and TF_DataType. */
enum : int { TF_OK_CODE = 0, TF_INVALID_ARGUMENT_CODE = 3, TF_INTERNAL_CODE = 13 };
enum : int { TF_FLOAT_TYPE = 1, TF_INT32_TYPE = 3, TF_UINT8_TYPE = 4, TF_BOOL_TYPE = 10 };

/** Every function by its own name without the TF_; X(result, name, parameters). */
#define FLASH_ATTENTION_TENSORFLOW_FUNCTIONS(X)                                                                        \
  X(TF_Status*, NewStatus, ())                                                                                         \
  X(void, DeleteStatus, (TF_Status*))                                                                                  \
  X(void, SetStatus, (TF_Status*, int, const char*))                                                                   \
  X(int, GetCode, (const TF_Status*))                                                                                  \
  X(const char*, Message, (const TF_Status*))                                                                          \
  X(void, DeleteBuffer, (TF_Buffer*))                                                                                  \
  X(void, DeleteTensor, (TF_Tensor*))                                                                                  \
  X(int, TensorType, (const TF_Tensor*))                                                                               \
  X(int, NumDims, (const TF_Tensor*))                                                                                  \
  X(int64_t, Dim, (const TF_Tensor*, int))                                                                             \
  X(int64_t, TensorElementCount, (const TF_Tensor*))                                                                   \
  X(void*, TensorData, (const TF_Tensor*))                                                                             \
  X(TF_OpDefinitionBuilder*, NewOpDefinitionBuilder, (const char*))                                                    \
  X(void, RegisterOpDefinition, (TF_OpDefinitionBuilder*, TF_Status*))                                                 \
  X(void, OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder*, const char*))                                          \
  X(void, OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder*, const char*))                                         \
  X(void, OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder*, const char*))                                        \
  X(void, OpDefinitionBuilderSetIsStateful, (TF_OpDefinitionBuilder*, bool))                                           \
  X(void, OpDefinitionBuilderSetShapeInferenceFunction,                                                                \
    (TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)))                                        \
  X(void, ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext*, TF_Status*))                               \
  X(TF_KernelBuilder*, NewKernelBuilder,                                                                               \
    (const char*, const char*, void* (*)(TF_OpKernelConstruction*), void (*)(void*, TF_OpKernelContext*),              \
     void (*)(void*)))                                                                                                 \
  X(void, KernelBuilder_HostMemory, (TF_KernelBuilder*, const char*))                                                  \
  X(void, RegisterKernelBuilder, (const char*, TF_KernelBuilder*, TF_Status*))                                         \
  X(TF_Buffer*, GetRegisteredKernelsForOp, (const char*, TF_Status*))                                                  \
  X(int, NumInputs, (TF_OpKernelContext*))                                                                             \
  X(int, NumOutputs, (TF_OpKernelContext*))                                                                            \
  X(void, GetInput, (TF_OpKernelContext*, int, TF_Tensor**, TF_Status*))                                               \
  X(void, OpKernelContext_Failure, (TF_OpKernelContext*, TF_Status*))                                                  \
  X(TF_Tensor*, AllocateOutput, (TF_OpKernelContext*, int, int, const int64_t*, int, size_t, TF_Status*))              \
  X(TF_Tensor*, AllocateTemp,                                                                                          \
    (TF_OpKernelContext*, int, const int64_t*, int, TF_AllocatorAttributes*, TF_Status*))

struct TensorFlowApi {
#define FLASH_ATTENTION_MEMBER(result, name, parameters) result(*name) parameters = nullptr;
  FLASH_ATTENTION_TENSORFLOW_FUNCTIONS(FLASH_ATTENTION_MEMBER)
#undef FLASH_ATTENTION_MEMBER
  /** The file that holds the API. */
  std::string library;
};

/** Looks in what the process has loaded. @return what is missing, empty where nothing is. */
std::string find_tensorflow(TensorFlowApi* api);

}  // namespace flash_attention
