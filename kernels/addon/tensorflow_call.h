// One run of an op's kernel: from TensorFlow's context to a call, its results in memory of TensorFlow.
#pragma once

#include "tensorflow_api.h"

namespace flash_attention {

/** Kernels of the device CPU. Errors are left in the context. */
void attention_on_cpu(const TensorFlowApi& api, TF_OpKernelContext* context);
void append_on_cpu(const TensorFlowApi& api, TF_OpKernelContext* context);

}  // namespace flash_attention
