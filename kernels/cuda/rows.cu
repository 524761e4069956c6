// The kernels for few rows and for odd operands: flash_rows_<elements of a lane>_<rows>; 32·elements ≥ D and Dv.
#include "instances.h"
#include "rows.cuh"

using namespace flash_attention::cuda;

#define FLASH_ROWS(E, ROWS)                                                               \
  static_assert(sizeof(RowsKernel<E, ROWS>::Shared) == rows_shared_bytes(E, ROWS), "");   \
  extern "C" __global__ void __launch_bounds__(ROW_WARPS * 32, rows_blocks(E, ROWS))       \
      flash_rows_##E##_##ROWS(const __grid_constant__ Params p) {                         \
    attend_rows<RowsKernel<E, ROWS>>(p);                                                  \
  }
FLASH_ROWS_INSTANCES(FLASH_ROWS)
