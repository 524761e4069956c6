// Vectors of floats as wide as the instruction set that a file is compiled for, in the vector extensions of GCC and
// Clang, so that one source serves all. Everything here has internal linkage: an inline function that the linker may
// share would bring wide instructions to CPUs that lack them. For that reason nothing of the C++ library is used
// either.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace flash_attention {
namespace {

#if defined(__AVX512F__)
#define FLASH_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FLASH_VECTOR_BYTES 32
#else
#define FLASH_VECTOR_BYTES 16
#endif

constexpr int LANES = FLASH_VECTOR_BYTES / 4;

typedef float Vector __attribute__((vector_size(FLASH_VECTOR_BYTES)));
typedef int32_t Integers __attribute__((vector_size(FLASH_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(FLASH_VECTOR_BYTES)));
typedef float UnalignedVector __attribute__((vector_size(FLASH_VECTOR_BYTES), aligned(4)));
typedef int32_t UnalignedIntegers __attribute__((vector_size(FLASH_VECTOR_BYTES), aligned(4)));

constexpr float INFINITE = __builtin_inff();

inline Vector load(const float* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
inline Integers load(const int32_t* from) { return *reinterpret_cast<const UnalignedIntegers*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<UnalignedVector*>(to) = value; }

inline Vector splat(float value) { return value - Vector{}; }
inline Integers splat(int32_t value) { return value - Integers{}; }

/** The larger of each pair; where `b` is NaN, `a`. */
inline Vector larger(Vector a, Vector b) { return b > a ? b : a; }

inline Vector absolute(Vector x) {
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) & splat(int32_t{0x7fffffff}));
}

inline float sum(Vector x) {
  float total[LANES];
  store(total, x);
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) {
      total[i] += total[i + width];
    }
  }
  return total[0];
}

/**
 * exp(x) to about one unit in the last place: 0 where it is below the normal numbers (on AVX-512 below all), ∞ above
 * them, NaN of NaN. x = n·ln 2 + r with |r| ≤ ln 2 / 2 and the polynomial of Cephes' expf (Moshier) for exp(r).
 */
inline Vector exponential(Vector x) {
  constexpr float magic = 12582912.f;  // 1.5·2²³: what is added to it is rounded to an integer, in the low bits
#if defined(__AVX512F__)
  x = _mm512_min_ps(splat(128.f), _mm512_max_ps(splat(-128.f), x));  // of two, the second where either is NaN
#endif
  const Vector shifted = x * 1.44269504088896341f + magic;
  const Vector n = shifted - magic;
  const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  const Words power = reinterpret_cast<Words>(shifted) << 23;
  Vector result = reinterpret_cast<Vector>(reinterpret_cast<Words>(p) + power);
  result = x < splat(-87.3f) ? splat(0.f) : result;
  result = x > splat(88.7f) ? splat(INFINITE) : result;
  return x == x ? result : x;
#endif
}

/** tanh(x), as exact for small x as for large: Cephes' tanhf (Moshier). */
inline Vector hyperbolic_tangent(Vector x) {
  const Vector size = absolute(x);
  const Vector z = x * x;
  Vector p = splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Vector small = p * z * x + x;
  const Vector large = 1.f - 2.f / (exponential(size + size) + 1.f);
  return size < splat(0.625f) ? small : (x < splat(0.f) ? -large : large);
}

}  // namespace
}  // namespace flash_attention
