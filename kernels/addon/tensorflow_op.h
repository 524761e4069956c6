// The ops that TensorFlow gets, and their kernels.
#pragma once

#include <string>

namespace flash_attention {

/**
 * Registers ops and kernels with the TensorFlow of this process, once, however often and from whichever thread it is
 * called. Pins the addon in memory, as TensorFlow calls it from then on.
 * @return what stands in the way, empty where they are registered.
 */
std::string register_tensorflow_ops();

}  // namespace flash_attention
