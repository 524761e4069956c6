// The Hopper kernels on their emulator (hopper/emulator.h), as a library of its own: that emulator and the one of
// emulate_test.cc define the same names.
#define FLASH_EMULATOR "../../../test/cuda/hopper/emulator.h"
#define __launch_bounds__(threads, blocks)

#include <map>
#include <string>

#include "../../kernels/cuda/hopper/backward_sm90.cu"
#include "../../kernels/cuda/hopper/forward_sm90.cu"

using namespace flash_attention;

#define EXPORT extern "C" __attribute__((visibility("default")))

/** In place of cuTensorMapEncodeTiled. */
EXPORT CuResult emulated_tensor_map(CuTensorMap* map, int type, unsigned int rank, void* address, const uint64_t* sizes,
                                    const uint64_t* strides, const unsigned int* box, const unsigned int* steps,
                                    int interleave, int swizzle, int promotion, int outside) {
  return hopper::emulated_encode(map, type, rank, address, sizes, strides, box, steps, interleave, swizzle, promotion,
                                 outside);
}

/** Runs a kernel; false where there is none of that name. */
EXPORT bool run_emulated_hopper(const char* name, const HopperParams* params, int blocks, int threads) {
#define FLASH_FUNCTION(NAME) {#NAME, NAME}
  static const std::map<std::string, void (*)(HopperParams)> functions = {
      FLASH_FUNCTION(hopper_forward_bf16_64),        FLASH_FUNCTION(hopper_forward_f16_64),
      FLASH_FUNCTION(hopper_forward_bf16_128),       FLASH_FUNCTION(hopper_forward_f16_128),
      FLASH_FUNCTION(hopper_forward_bf16_256),       FLASH_FUNCTION(hopper_forward_f16_256),
      FLASH_FUNCTION(hopper_key_gradient_bf16_64),   FLASH_FUNCTION(hopper_key_gradient_f16_64),
      FLASH_FUNCTION(hopper_key_gradient_bf16_128),  FLASH_FUNCTION(hopper_key_gradient_f16_128),
      FLASH_FUNCTION(hopper_added_gradient_bf16_64), FLASH_FUNCTION(hopper_added_gradient_f16_64),
      FLASH_FUNCTION(hopper_added_gradient_bf16_128), FLASH_FUNCTION(hopper_added_gradient_f16_128),
      FLASH_FUNCTION(hopper_query_sums_bf16_64),     FLASH_FUNCTION(hopper_query_sums_f16_64),
      FLASH_FUNCTION(hopper_query_sums_bf16_128),    FLASH_FUNCTION(hopper_query_sums_f16_128),
      FLASH_FUNCTION(hopper_query_gradient_bf16_64), FLASH_FUNCTION(hopper_query_gradient_f16_64),
      FLASH_FUNCTION(hopper_query_gradient_bf16_128), FLASH_FUNCTION(hopper_query_gradient_f16_128)};
  static uint32_t launches = 0;
  const auto found = functions.find(name);
  if (found == functions.end()) {
    return false;
  }
  hopper::Machine multiprocessor;
  for (int block = 0; block < blocks; block++) {
    multiprocessor.run([&] { found->second(*params); }, threads, block, blocks, launches++);
  }
  return true;
}
