// The tensor map that TMA reads a canonical operand by. Plain C++: the driver's encoder is given as a pointer, so that
// neither the toolkit's headers nor its libraries are needed.
#pragma once

#include <cstdint>

#include "layouts.h"

namespace flash_attention {
namespace hopper {

/** CUtensorMap. */
struct alignas(64) TensorMap {
  uint64_t words[16];
};

/** cuTensorMapEncodeTiled, its enumerations as the integers that they are. */
using EncodeTensorMap = int (*)(TensorMap* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
                                const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                                int interleave, int swizzle, int l2_promotion, int outside);

/** What is handed to the encoder, so that a test can look at it. */
struct TensorMapFields {
  int type;
  uint64_t sizes[3];
  /** In bytes, of axes 1 and 2. */
  uint64_t strides[2];
  uint32_t box[3];
  uint32_t element_strides[3];
};

/** Of 16-bit rows [heads][rows][columns], read by boxes of 64 columns × `box_rows`. */
TensorMapFields tensor_map_fields(bool is_bfloat16, uint64_t heads, uint64_t rows, uint64_t columns,
                                  uint32_t box_rows);

/**
 * @param address of the operand, aligned to 16 bytes
 * @return CUDA_SUCCESS (0) or the driver's error; a box of more than 256 rows gives CUDA_ERROR_INVALID_VALUE (1)
 */
int encode_tensor_map(EncodeTensorMap encode, TensorMap* map, void* address, const TensorMapFields& fields);

}  // namespace hopper
}  // namespace flash_attention
