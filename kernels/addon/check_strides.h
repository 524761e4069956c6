// Whether what a description says of places in memory is true of its tensors. Part of description.h.
#pragma once

#include <string>

#include "description.h"

namespace flash_attention {

/** Elements that a shape has; −1 where they are too many. */
int64_t shape_product(const int64_t* shape, int rank);

/** Shapes, and that no two elements which are written share a place. */
std::string check_strides(const Description& description);

}  // namespace flash_attention
