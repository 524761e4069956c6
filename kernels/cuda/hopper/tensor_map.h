// The tensor map that TMA reads a canonical operand by. Plain C++; the driver's encoder is given as a pointer, so that
// tests can look at what it gets.
#pragma once

#include <cstdint>

#include "../driver_api.h"
#include "layouts.h"

namespace flash_attention {
namespace hopper {

using TensorMap = CuTensorMap;
using EncodeTensorMap = decltype(DriverApi::tensor_map_tiled);

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
