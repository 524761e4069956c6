#pragma once

#include "isa.h"

namespace flash_attention {

/** Those of the best instruction set that is built and that this CPU has, or of the one that was forced. */
const Kernels& current_kernels();

}  // namespace flash_attention
