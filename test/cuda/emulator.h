// CUDA blocks on a CPU: each thread is a fibre, warp operations and barriers are places where fibres wait for each
// other. So the kernels' own source runs, lane by lane, where there is no GPU. Only mma.cuh has a stand-in
// (emulated/mma.cuh).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define FLASH_EMULATED 1

struct Dim3 {
  unsigned int x = 1, y = 1, z = 1;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint4 {
  uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace emulator {

extern Dim3 thread_index, block_index, grid_size, block_size;
extern uint64_t blocks_begun;

/** What all lanes of the running thread's warp gave; waits until all have. */
struct Exchange {
  uint64_t of[32];
};
const Exchange& exchange(uint64_t mine);
/** Words that a lane gives to, and gets from, what all lanes do together; `whole` is done once, when all have given. */
struct WarpWords {
  uint32_t of[32][12];
};
using WholeWarp = void (*)(const WarpWords& given, WarpWords& results);
const WarpWords& exchange(const uint32_t* mine, int words, WholeWarp whole);
/** Waits for all threads of the block. */
void barrier();
/** The same, and whether any gave true. */
bool barrier_or(bool mine);

/** Runs `kernel` for every thread of every block. */
void launch(Dim3 grid, unsigned int threads, const std::function<void()>& kernel);

constexpr int SHARED_BYTES = 232448;

inline uint64_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint64_t x) {
  const uint32_t bits = static_cast<uint32_t>(x);
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline int lane() { return static_cast<int>(thread_index.x & 31); }

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define gridDim emulator::grid_size
#define blockDim emulator::block_size

inline void __syncthreads() { emulator::barrier(); }
inline int __syncthreads_or(int x) { return emulator::barrier_or(x != 0); }
inline void __syncwarp() { emulator::exchange(0); }
inline float __shfl_xor_sync(uint32_t, float x, int mask) {
  return emulator::float_of(emulator::exchange(emulator::bits_of(x)).of[emulator::lane() ^ mask]);
}
inline uint32_t __shfl_xor_sync(uint32_t, uint32_t x, int mask) {
  return static_cast<uint32_t>(emulator::exchange(x).of[emulator::lane() ^ mask]);
}
inline double __shfl_xor_sync(uint32_t, double x, int mask) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  bits = emulator::exchange(bits).of[emulator::lane() ^ mask];
  std::memcpy(&x, &bits, 8);
  return x;
}
inline float __shfl_sync(uint32_t, float x, int from) {
  return emulator::float_of(emulator::exchange(emulator::bits_of(x)).of[from & 31]);
}
inline int __shfl_sync(uint32_t, int x, int from) {
  return static_cast<int>(emulator::exchange(static_cast<uint32_t>(x)).of[from & 31]);
}
inline uint32_t __ballot_sync(uint32_t, bool x) {
  const emulator::Exchange& all = emulator::exchange(x);
  uint32_t bits = 0;
  for (int n = 0; n < 32; n++) {
    bits |= static_cast<uint32_t>(all.of[n] != 0) << n;
  }
  return bits;
}
inline bool __all_sync(uint32_t mask, bool x) { return __ballot_sync(mask, x) == 0xffffffffu; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32); }
inline uint32_t __float_as_uint(float x) { return static_cast<uint32_t>(emulator::bits_of(x)); }
inline float __uint_as_float(uint32_t x) { return emulator::float_of(x); }
template <typename T>
T __ldg(const T* from) { return *from; }
inline void atomicMax(uint32_t* to, uint32_t x) { *to = *to > x ? *to : x; }
inline void atomicOr(uint32_t* to, uint32_t x) { *to |= x; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline uint32_t max(uint32_t a, uint32_t b) { return a > b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
using std::isfinite;
