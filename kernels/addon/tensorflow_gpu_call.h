// Runs of the ops' kernels for TensorFlow's device "GPU": tensors in the memory of a CUDA device, integers in the
// host's. Errors are left in the context.
#pragma once

#include "tensorflow_api.h"

namespace flash_attention {

void attention_on_gpu(const TensorFlowApi& api, TF_OpKernelContext* context);
void append_on_gpu(const TensorFlowApi& api, TF_OpKernelContext* context);

}  // namespace flash_attention
