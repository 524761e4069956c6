// The backward kernels: flash_d_query_<name>, and flash_d_key_value_<name> or, at DP = 256, _d_key_ and _d_value_.
#include "gradient.cuh"
#include "instances.h"

using namespace flash_attention::cuda;

#define FLASH_KERNEL(kernel, Tile, BLOCKS, body)                            \
  extern "C" __global__ void __launch_bounds__(Tile::THREADS, BLOCKS)       \
      kernel(const __grid_constant__ Params p) {                            \
    body;                                                                   \
  }

#define FLASH_QUERIES(name, GENERAL, Kind, DP, WARPS, MOVING, STAGES, COLUMNS)               \
  using Gradient_##name = GradientTile<Kind, DP, WARPS, MOVING, STAGES, COLUMNS>;            \
  static_assert(Gradient_##name::SHARED_BYTES <= 99 * 1024, "shared memory");                \
  FLASH_KERNEL(flash_d_query_##name, Gradient_##name, (DP <= 64 && Kind::PIECES == 1 ? 3 : 2),    \
               (d_query_tile<Gradient_##name, GENERAL>(p)))

#define FLASH_KEYS(role, name, GENERAL) \
  FLASH_KERNEL(flash_##role##_##name, Gradient_##name, 2, (d_key_tile<Gradient_##name, GENERAL, Role::role>(p)))

#define FLASH_NARROW(name, GENERAL, ...)    \
  FLASH_QUERIES(name, GENERAL, __VA_ARGS__) \
  FLASH_KEYS(d_key_value, name, GENERAL)

#define FLASH_WIDE(name, GENERAL, ...)      \
  FLASH_QUERIES(name, GENERAL, __VA_ARGS__) \
  FLASH_KEYS(d_key, name, GENERAL)          \
  FLASH_KEYS(d_value, name, GENERAL)

FLASH_GRADIENT_INSTANCES(FLASH_NARROW, FLASH_WIDE)
