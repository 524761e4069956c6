// The ops that TensorFlow gets, and their kernels.
#pragma once

#include <string>

namespace flash_attention {

/**
 * Registers ops and kernels with the TensorFlow of this process, once, however often and from whichever thread it is
 * called. Pins the addon in memory, as TensorFlow calls it from then on.
 * @param with_gpu whether TensorFlow uses GPUs: then it gets kernels for them too, where the addon has any for a device
 * @param has_gpu set to whether it has got such
 * @return what stands in the way, empty where they are registered.
 */
std::string register_tensorflow_ops(bool with_gpu, bool* has_gpu);

}  // namespace flash_attention
