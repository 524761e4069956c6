// mma.cuh without PTX: what its instructions do, as the PTX ISA has it. ldmatrix and mma exchange the lanes' registers.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include <deque>
#include <vector>

#include "../emulator.h"

namespace flash_attention {
namespace cuda {

extern unsigned char shared[];

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared);
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
};
inline PendingCopies& pending_copies() {
  static PendingCopies all[1024];
  return all[emulator::thread_index.x];
}
inline void copy_16_async(uint32_t to, const void* from) { pending_copies().open.push_back({to, from, 16}); }
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
      __builtin_memcpy(shared + copy.to, copy.from, copy.bytes);
    }
    groups.pop_front();
  }
}

inline void load_all(uint32_t (&to)[4], uint32_t address, bool transposed) {
  const emulator::Exchange rows = emulator::exchange(address);
  const int lane = emulator::lane();
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t pair[2];
    for (int i = 0; i < 2; i++) {
      const int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
      __builtin_memcpy(&pair[i], shared + rows.of[matrix * 8 + row] + column * 2, 2);
    }
    __builtin_memcpy(&to[matrix], pair, 4);
  }
}

inline void load_matrices(uint32_t (&to)[4], uint32_t address) { load_all(to, address, false); }
inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) { load_all(to, address, true); }
inline uint32_t move_chunks(uint32_t address, int chunks) { return address ^ (chunks * 16); }
inline float exp2_fast(float x) { return exp2f(x); }

template <class Number>
inline void multiply_all(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const int lane = emulator::lane();
  float left[16][16], right[16][8];
  for (int n = 0; n < 4; n++) {
    const emulator::Exchange all = emulator::exchange(a[n]);
    for (int of = 0; of < 32; of++) {
      for (int i = 0; i < 2; i++) {
        left[of / 4 + n % 2 * 8][of % 4 * 2 + i + n / 2 * 8] = Number::number(all.of[of] >> (16 * i) & 0xffff);
      }
    }
  }
  for (int n = 0; n < 2; n++) {
    const emulator::Exchange all = emulator::exchange(n == 0 ? b0 : b1);
    for (int of = 0; of < 32; of++) {
      for (int i = 0; i < 2; i++) {
        right[of % 4 * 2 + i + n * 8][of / 4] = Number::number(all.of[of] >> (16 * i) & 0xffff);
      }
    }
  }
  for (int i = 0; i < 4; i++) {
    double sum = c[i];
    for (int k = 0; k < 16; k++) {
      sum += static_cast<double>(left[lane / 4 + i / 2 * 8][k]) * right[k][lane % 4 * 2 + i % 2];
    }
    c[i] = static_cast<float>(sum);
  }
}

struct Bf16 {
  static constexpr int PIECES = 1;
  static constexpr int WEIGHT_EXPONENT = 0;
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
  static constexpr int WEIGHT_EXPONENT = 14;
  static float number(uint64_t bits) { return _cvtsh_ss(static_cast<unsigned short>(bits)); }
  static uint32_t pack(float low, float high) {
    return static_cast<uint32_t>(_cvtss_sh(low, 0)) | static_cast<uint32_t>(_cvtss_sh(high, 0)) << 16;
  }
  static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    multiply_all<F16>(c, a, b0, b1);
  }
};

struct SplitF16 : F16 {
  static constexpr int PIECES = 2;
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
