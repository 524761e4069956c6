#include "tensor_map.h"

namespace flash_attention {
namespace hopper {
namespace {

// Values of enumerations in cuda.h, which are part of the driver's binary interface.
constexpr int TYPE_FLOAT16 = 6, TYPE_BFLOAT16 = 9;
constexpr int INTERLEAVE_NONE = 0, SWIZZLE_128B = 3, L2_PROMOTION_128B = 2, OUTSIDE_ZEROS = 0;
constexpr int SUCCESS = 0, INVALID_VALUE = 1;

}  // namespace

TensorMapFields tensor_map_fields(bool is_bfloat16, uint64_t heads, uint64_t rows, uint64_t columns,
                                  uint32_t box_rows) {
  return {is_bfloat16 ? TYPE_BFLOAT16 : TYPE_FLOAT16,
          {columns, rows, heads},
          {columns * 2, columns * 2 * rows},
          {PANEL_COLUMNS, box_rows, 1},
          {1, 1, 1}};
}

int encode_tensor_map(EncodeTensorMap encode, TensorMap* map, void* address, const TensorMapFields& fields) {
  if (!encode || fields.box[1] == 0 || fields.box[1] > 256 || reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    return INVALID_VALUE;
  }
  const int result = encode(map, fields.type, 3, address, fields.sizes, fields.strides, fields.box,
                            fields.element_strides, INTERLEAVE_NONE, SWIZZLE_128B, L2_PROMOTION_128B, OUTSIDE_ZEROS);
  return result == SUCCESS ? SUCCESS : result;
}

}  // namespace hopper
}  // namespace flash_attention
