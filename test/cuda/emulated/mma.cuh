// mma.cuh without PTX: what its instructions do, as the PTX ISA has it. ldmatrix and mma exchange the lanes' registers.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

#include "../emulator.h"
#include "layout.h"

namespace flash_attention {
namespace cuda {

extern unsigned char shared[];

/** Shared memory begins where its alignment allows and no better: behind what a kernel declares beside it. */
inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared) + SHARED_ALIGNMENT;
}
inline unsigned char* at_address(uint32_t address) {
  if (address - SHARED_ALIGNMENT >= emulator::SHARED_BYTES) {
    std::fprintf(stderr, "address %u is not in shared memory\n", address);
    std::abort();
  }
  return shared + (address - SHARED_ALIGNMENT);
}

/** Copies of a thread that it has not waited for: they are made as late as may be, so that a missing wait shows. */
struct PendingCopies {
  struct Copy {
    uint32_t to;
    const void* from;
    int bytes;
  };
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
  /** What another block has left behind is gone. */
  uint64_t block = 0;
};
inline PendingCopies& pending_copies() {
  static PendingCopies all[1024];
  PendingCopies& own = all[emulator::thread_index.x];
  if (own.block != emulator::blocks_begun) {
    own = {};
    own.block = emulator::blocks_begun;
  }
  return own;
}
inline void copy_16_async(uint32_t to, const void* from) { pending_copies().open.push_back({to, from, 16}); }
inline void copy_8_async(uint32_t to, const void* from) { pending_copies().open.push_back({to, from, 8}); }
inline void copy_4_async(uint32_t to, const void* from) { pending_copies().open.push_back({to, from, 4}); }
inline void commit_copies() {
  pending_copies().groups.push_back(std::move(pending_copies().open));
  pending_copies().open.clear();
}
template <int PENDING>
inline void wait_copies() {
  auto& groups = pending_copies().groups;
  while (groups.size() > PENDING) {
    for (const auto& copy : groups.front()) {
      __builtin_memcpy(at_address(copy.to), copy.from, copy.bytes);
    }
    groups.pop_front();
  }
}

inline void load_all(uint32_t (&to)[4], uint32_t address, bool transposed) {
  const emulator::Exchange& rows = emulator::exchange(address);
  const int lane = emulator::lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t pair[2];
    for (int i = 0; i < 2; i++) {
      const int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
      __builtin_memcpy(&pair[i], at_address(static_cast<uint32_t>(rows.of[matrix * 8 + row])) + column * 2, 2);
    }
    __builtin_memcpy(&to[matrix], pair, 4);
  }
}

inline void load_matrices(uint32_t (&to)[4], uint32_t address) { load_all(to, address, false); }
inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) { load_all(to, address, true); }
inline uint32_t move_chunks(uint32_t address, int chunks) { return address ^ (chunks * 16); }
inline float exp2_fast(float x) { return exp2f(x); }

inline int exponent_of(float x) { return static_cast<int>(emulator::bits_of(x) >> 23 & 0xff) - 127; }
inline double power_of(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double result;
  __builtin_memcpy(&result, &bits, 8);
  return result;
}

/**
 * Bits after the point, of the largest term's exponent, that a tensor core keeps of each term of a sum: 25 gives the
 * errors that an H200 gave. EMULATED_BITS=24 is the guess for compute capability 8.0.
 */
inline int kept_bits() {
  static const char* const other = std::getenv("EMULATED_BITS");
  static const int bits = other ? std::atoi(other) : 25;
  return bits;
}

/**
 * A sum as tensor cores of compute capability 9.0 make it: terms are brought to the exponent of the largest and cut off,
 * and so is the sum. Their errors are no larger than those of a sum that rounds, but all have one sign.
 */
inline float sum_of_terms(const float* left, const float* right, int stride, float c) {
  double terms[17];
  int most = c != 0 ? exponent_of(c) : -1000;
  for (int k = 0; k < 16; k++) {
    const float a = left[k], b = right[k * stride];
    terms[k] = static_cast<double>(a) * b;
    if (!std::isfinite(terms[k])) {
      most = 1000;
    } else if (terms[k] != 0) {
      const int exponent = exponent_of(a) + exponent_of(b);
      most = exponent > most ? exponent : most;
    }
  }
  terms[16] = c;
  if (most == -1000) {
    return 0;
  }
  if (most == 1000 || !std::isfinite(c)) {
    double sum = 0;
    for (double term : terms) {
      sum += term;
    }
    return static_cast<float>(sum);
  }
  const double scale = power_of(kept_bits() - most);
  int64_t sum = 0;
  for (double term : terms) {
    sum += static_cast<int64_t>(term * scale);
  }
  int64_t size = sum < 0 ? -sum : sum;
  const int excess = size >> 24 ? 40 - __builtin_clzll(size) : 0;
  size = size >> excess << excess;
  return static_cast<float>(static_cast<double>(sum < 0 ? -size : size) / scale);
}

template <class Number>
inline void multiply_all(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  uint32_t words[10] = {a[0], a[1], a[2], a[3], b0, b1};
  __builtin_memcpy(words + 6, c, 16);
  const emulator::WarpWords& results = emulator::exchange(
      words, 10, [](const emulator::WarpWords& given, emulator::WarpWords& results) {
        float left[16][16], right[16][8];
        for (int lane = 0; lane < 32; lane++) {
          const uint32_t* word = given.of[lane];
          for (int i = 0; i < 2; i++) {
            for (int n = 0; n < 4; n++) {
              left[lane / 4 + n % 2 * 8][lane % 4 * 2 + i + n / 2 * 8] =
                  Number::number(word[n] >> (16 * i) & 0xffff);
            }
            for (int n = 0; n < 2; n++) {
              right[lane % 4 * 2 + i + n * 8][lane / 4] = Number::number(word[4 + n] >> (16 * i) & 0xffff);
            }
          }
        }
        for (int lane = 0; lane < 32; lane++) {
          for (int i = 0; i < 4; i++) {
            float here;
            __builtin_memcpy(&here, &given.of[lane][6 + i], 4);
            here = sum_of_terms(left[lane / 4 + i / 2 * 8], &right[0][lane % 4 * 2 + i % 2], 8, here);
            __builtin_memcpy(&results.of[lane][i], &here, 4);
          }
        }
      });
  __builtin_memcpy(c, results.of[emulator::lane()], 16);
}

struct Bf16 {
  static constexpr int PIECES = 1;
  static constexpr int WEIGHT_EXPONENT = 0, FOLDED_EXPONENT = 0;
  static float number(uint64_t bits) { return emulator::float_of(bits << 16); }
  static uint32_t rounded(float x) {
    const uint32_t bits = static_cast<uint32_t>(emulator::bits_of(x));
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
  static uint32_t pack(float low, float high) { return rounded(low) | rounded(high) << 16; }
  static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    multiply_all<Bf16>(c, a, b0, b1);
  }
};

struct F16 {
  static constexpr int PIECES = 1;
  static constexpr int WEIGHT_EXPONENT = 14, FOLDED_EXPONENT = 14;
  static float number(uint64_t bits) { return _cvtsh_ss(static_cast<unsigned short>(bits)); }
  static uint32_t pack(float low, float high) {
    return static_cast<uint32_t>(_cvtss_sh(low, 0)) | static_cast<uint32_t>(_cvtss_sh(high, 0)) << 16;
  }
  static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    multiply_all<F16>(c, a, b0, b1);
  }
};

struct SplitF16 : F16 {
  static constexpr int PIECES = 2, FOLDED_EXPONENT = 0;
};

inline void unpack_f16(uint32_t pair, float& low, float& high) {
  low = F16::number(pair & 0xffff);
  high = F16::number(pair >> 16);
}

template <class Kind>
inline void pack_pieces(float x, float y, uint32_t (&pieces)[Kind::PIECES]) {
  pieces[0] = Kind::pack(x, y);
  if constexpr (Kind::PIECES == 2) {
    float high_x, high_y;
    unpack_f16(pieces[0], high_x, high_y);
    pieces[1] = Kind::pack(x - high_x, y - high_y);
  }
}

}  // namespace cuda
}  // namespace flash_attention
