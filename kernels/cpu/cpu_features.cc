// Asks the CPU itself: __builtin_cpu_supports is false for everything where zig links (0.17.1, its compiler-rt never
// fills __cpu_model in), and the prebuilt addon would run portable code everywhere.
#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#endif

namespace flash_attention {

#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf) {
  Registers r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);  // all 0 for a leaf that is not there
  return r;
}

constexpr bool has(unsigned value, unsigned bits) { return (value & bits) == bits; }

/** Which registers the system saves when it switches threads. Only where the CPU has OSXSAVE. */
uint64_t saved_registers() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

constexpr unsigned V3_LEAF_1 = bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C;
constexpr unsigned V3_LEAF_7 = bit_AVX2 | bit_BMI | bit_BMI2;
constexpr unsigned LZCNT = 1u << 5;
constexpr unsigned V4_LEAF_7 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
constexpr uint64_t YMM = 0x06;
constexpr uint64_t ZMM = 0xe6;

}  // namespace

bool cpu_has_avx2() {
  return has(cpuid(1).ecx, V3_LEAF_1) && has(cpuid(7).ebx, V3_LEAF_7) && has(cpuid(0x80000001).ecx, LZCNT) &&
         (saved_registers() & YMM) == YMM;
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && has(cpuid(7).ebx, V4_LEAF_7) && (saved_registers() & ZMM) == ZMM;
}

#else

bool cpu_has_avx2() { return false; }
bool cpu_has_avx512() { return false; }

#endif

}  // namespace flash_attention
