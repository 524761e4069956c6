// The Hopper kernels' own source on the emulator, against float64: forward and both backward kernels, both types, every
// head size, causal, windows, lengths, sinks, grouped heads, more work than blocks.
//
//   g++ -std=c++17 -O2 -o kernels_test test/cuda/hopper/kernels_test.cc kernels/cuda/hopper/*.cc
#define FLASH_EMULATOR "../../../test/cuda/hopper/emulator.h"
#define __launch_bounds__(threads, blocks)

#include "problem.h"

namespace {

void* device_allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes + 256) != 0) {
    std::abort();
  }
  return memory;
}
void device_free(void* memory) { std::free(memory); }
void device_write(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void device_read(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
EncodeTensorMap device_encoder() { return emulated_encode; }
/** Few, so that each takes several tiles. */
int device_processors() { return 3; }

uint32_t launches = 0;
void device_launch(const HopperParams& params, const Kernel& kernel) {
  const int blocks = blocks_of(params, kernel);
  *params.next_tile = 0;
  Machine multiprocessor;
  for (int block = 0; block < blocks; block++) {
    multiprocessor.run([&] { kernel.function(params); }, kernel.threads, block, blocks, launches++);
  }
}

}  // namespace

/** All kernels, or those whose name begins with the argument. */
int main(int count, char** words) {
  int failures = 0;
  for (const Kernel& kernel : SHIPPED) {
    if (count > 1 && std::string(kernel.name).find(words[1]) != 0) {
      continue;
    }
    for (size_t i = 0; i < SHAPES.size(); i++) {
      if (kernel.pass != Pass::sums && dp_of(SHAPES[i]) == kernel.dp) {
        const Verdict verdict = check_kernel(kernel, SHAPES[i], static_cast<uint32_t>(i + 1));
        std::printf("%s %s |%s\n", kernel.name, words_of(SHAPES[i]).c_str(), verdict.words.c_str());
        failures += !verdict.holds();
      }
    }
  }
  std::printf("kernels: %d failures\n", failures);
  return failures > 0;
}
