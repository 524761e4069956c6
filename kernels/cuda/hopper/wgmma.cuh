// wgmma of 16-bit operands into float32: 64 rows of a warpgroup by N columns, 16 deep, B in shared memory, A there or
// in registers. What is in flight is waited for by count; the registers of its accumulators and of A are not to be
// touched before, or ptxas serialises the products (C7510 and kin, which the build check refuses).
#pragma once

#include <cstdint>

#include "barriers.cuh"
#include "layouts.h"

namespace flash_attention {
namespace hopper {

#ifndef FLASH_EMULATOR

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Until at most PENDING committed groups, the newest, are in flight. */
template <int PENDING>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <typename T, int N>
struct Wgmma;

#define FLASH_D64                                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FLASH_D128                                                                   \
  FLASH_D64 ", "                                                                     \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FLASH_D256                                                                                 \
  FLASH_D128 ", "                                                                                  \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "               \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define FLASH_8(i)                                                                                           \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define FLASH_32(i) FLASH_8(i), FLASH_8(i + 8), FLASH_8(i + 16), FLASH_8(i + 24)
#define FLASH_O64 FLASH_32(0)
#define FLASH_O128 FLASH_O64, FLASH_32(32)
#define FLASH_O256 FLASH_O128, FLASH_32(64), FLASH_32(96)

// Operands are numbered after the N/2 accumulators: X0, X1, … are the numbers N/2, N/2 + 1, …
#define FLASH_WGMMA(TAG, TYPE, N, X0, X1, X2, X3, X4, X5, X6)                                                         \
  template <>                                                                                                         \
  struct Wgmma<TAG, N> {                                                                                              \
    template <Lies LEFT, Lies RIGHT>                                                                                  \
    static __device__ __forceinline__ void shared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {        \
      asm volatile(                                                                                                   \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %" #X2 ", 0;\n"                                                           \
          "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" FLASH_D##N "}, %" #X0 ", %" #X1        \
          ", p, 1, 1, %" #X3 ", %" #X4 ";\n}\n"                                                                      \
          : FLASH_O##N                                                                                                \
          : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(LEFT)), "n"(static_cast<int>(RIGHT)));              \
    }                                                                                                                 \
    template <Lies RIGHT>                                                                                             \
    static __device__ __forceinline__ void registers(float (&d)[N / 2], const uint32_t* a, uint64_t b,                \
                                                     int accumulate) {                                                \
      asm volatile(                                                                                                   \
          "{\n.reg .pred p;\nsetp.ne.b32 p, %" #X5 ", 0;\n"                                                           \
          "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" FLASH_D##N "}, {%" #X0 ", %" #X1       \
          ", %" #X2 ", %" #X3 "}, %" #X4 ", p, 1, 1, %" #X6 ";\n}\n"                                                  \
          : FLASH_O##N                                                                                                \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(RIGHT)));       \
    }                                                                                                                 \
  };
#define FLASH_WGMMA_BOTH(...)                \
  FLASH_WGMMA(Bfloat16, "bf16", __VA_ARGS__) \
  FLASH_WGMMA(Float16, "f16", __VA_ARGS__)

FLASH_WGMMA_BOTH(64, 32, 33, 34, 35, 36, 37, 38)
FLASH_WGMMA_BOTH(128, 64, 65, 66, 67, 68, 69, 70)
FLASH_WGMMA_BOTH(256, 128, 129, 130, 131, 132, 133, 134)

/** Two floats as 16 bits each, the first in the low half. */
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<Bfloat16>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <>
__device__ __forceinline__ uint32_t pack<Float16>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

#endif  // FLASH_EMULATOR

/**
 * C = A·Bᵀ: 64 rows of A from `a` on, in a tile of A_ROWS, times all N rows of B; sums over DEPTH elements of the rows.
 */
template <typename T, int N, int DEPTH, int A_ROWS>
__device__ __forceinline__ void multiply_rows(float (&c)[N / 2], uint32_t a, uint32_t b) {
  const uint64_t left = row_descriptor(a), right = row_descriptor(b);
#pragma unroll
  for (int step = 0; step < DEPTH / STEP; step++) {
    Wgmma<T, N>::template shared<Lies::rows, Lies::rows>(c, left + row_step_bytes(step, A_ROWS) / 16,
                                              right + row_step_bytes(step, N) / 16, step > 0);
  }
}

/** C = Aᵀ·B: A a panel of DEPTH rows at `a`, B N columns from `b` on of a tile of DEPTH rows; sums over the rows. */
template <typename T, int N, int DEPTH>
__device__ __forceinline__ void multiply_transposed(float (&c)[N / 2], uint32_t a, uint32_t b) {
  const uint64_t left = column_descriptor(a, DEPTH), right = column_descriptor(b, DEPTH);
#pragma unroll
  for (int step = 0; step < DEPTH / STEP; step++) {
    Wgmma<T, N>::template shared<Lies::columns, Lies::columns>(c, left + column_step_bytes(step) / 16,
                                                               right + column_step_bytes(step) / 16, step > 0);
  }
}

/** C += A·B: 64 rows of A from `a` on, in a tile of A_ROWS rows; B a tile of DEPTH rows of N elements. */
template <typename T, int N, int DEPTH, int A_ROWS>
__device__ __forceinline__ void multiply_shared(float (&c)[N / 2], uint32_t a, uint32_t b) {
  const uint64_t left = row_descriptor(a), right = column_descriptor(b, DEPTH);
#pragma unroll
  for (int step = 0; step < DEPTH / STEP; step++) {
    Wgmma<T, N>::template shared<Lies::rows, Lies::columns>(c, left + row_step_bytes(step, A_ROWS) / 16,
                                                            right + column_step_bytes(step) / 16, true);
  }
}

/** C += A·B: A in registers, DEPTH deep, B a tile of DEPTH rows of N elements. */
template <typename T, int N, int DEPTH>
__device__ __forceinline__ void multiply_columns(float (&c)[N / 2], const uint32_t (&a)[DEPTH / 4], uint32_t b,
                                                 bool accumulate) {
  const uint64_t right = column_descriptor(b, DEPTH);
#pragma unroll
  for (int step = 0; step < DEPTH / STEP; step++) {
    Wgmma<T, N>::template registers<Lies::columns>(c, a + step * 4, right + column_step_bytes(step) / 16,
                                                    step > 0 || accumulate);
  }
}

/** Accumulators of a product become the A of the next: no thread needs what another holds. */
template <typename T, int COUNT>
__device__ __forceinline__ void pack_operand(const float (&from)[COUNT], uint32_t (&to)[COUNT / 2]) {
#pragma unroll
  for (int i = 0; i < COUNT / 2; i++) {
    const int source = operand_source(i / 4, i % 4);
    to[i] = pack<T>(from[source], from[source + 1]);
  }
}

}  // namespace hopper
}  // namespace flash_attention
