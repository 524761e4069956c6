// The PTX instructions that the mma.sync kernels use.
#pragma once

#include <stdint.h>

namespace flash_attention {
namespace cuda {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void copy_16_async(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_8_async(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_4_async(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

/**
 * The address of chunk c + `chunks` from that of chunk c (layout.h), where c has none of the bits of `chunks`.
 * Volatile: else the compiler keeps all of these addresses in registers over the loop of tiles, and spills what matters.
 */
__device__ __forceinline__ uint32_t move_chunks(uint32_t address, int chunks) {
  uint32_t result;
  asm volatile("xor.b32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(chunks * 16));
  return result;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/**
 * What elements are. `pack` puts two into a register, the first in the low half. Weights as operands carry
 * 2^WEIGHT_EXPONENT; where FOLDED_EXPONENT is as much it comes with the argument of the power, for nothing, which costs
 * the argument bits that float32 needs.
 */
struct Bf16 {
  static constexpr int PIECES = 1;
  static constexpr int WEIGHT_EXPONENT = 0, FOLDED_EXPONENT = 0;
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
  }
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

struct F16 {
  static constexpr int PIECES = 1;
  static constexpr int WEIGHT_EXPONENT = 14, FOLDED_EXPONENT = 14;
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
  }
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

/** Two f16 to a float32: 22 bits. A product is high·low + low·high + high·high. */
struct SplitF16 : F16 {
  static constexpr int PIECES = 2, FOLDED_EXPONENT = 0;
};

/** The floats of a packed pair of f16. */
__device__ __forceinline__ void unpack_f16(uint32_t pair, float& low, float& high) {
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
      : "=f"(low), "=f"(high)
      : "r"(pair));
}

/** Two floats as pieces. */
template <class Kind>
__device__ __forceinline__ void pack_pieces(float x, float y, uint32_t (&pieces)[Kind::PIECES]) {
  pieces[0] = Kind::pack(x, y);
  if constexpr (Kind::PIECES == 2) {
    float high_x, high_y;
    unpack_f16(pieces[0], high_x, high_y);
    pieces[1] = Kind::pack(x - high_x, y - high_y);
  }
}

}  // namespace cuda
}  // namespace flash_attention
