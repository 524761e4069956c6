// Where things lie on Hopper, as plain arithmetic that host tests can check: the 128-byte swizzle, the descriptors of
// matrices in shared memory, and which thread holds which element of a wgmma's operands. After the PTX ISA,
// "Asynchronous warpgroup level matrix multiply" and "Tensor swizzling modes".
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FLASH_SHARED_CODE __host__ __device__ __forceinline__
#else
#define FLASH_SHARED_CODE inline
#endif

namespace flash_attention {
namespace hopper {

/** A panel is a column of a tile: rows of 64 elements of 16 bits, which is what a 128-byte swizzle spans. */
constexpr int PANEL_COLUMNS = 64;
constexpr int PANEL_ROW_BYTES = 128;
/** The swizzle repeats every 8 rows, and a panel must start on such a boundary. */
constexpr int SWIZZLE_BYTES = 1024;
constexpr int GROUP_THREADS = 128;
/** Rows of a warpgroup's product, and depth of one wgmma of 16-bit operands. */
constexpr int GROUP_ROWS = 64;
constexpr int STEP = 16;

/** Types of operands. */
struct Bfloat16 {};
struct Float16 {};

/** How an operand lies: M or N along the rows of shared memory (rows of K), or along their elements (columns of V). */
enum class Lies { rows = 0, columns = 1 };

/** Byte of element (row, column) in a panel as TMA lays it down with CU_TENSOR_MAP_SWIZZLE_128B. */
FLASH_SHARED_CODE constexpr uint32_t swizzled_byte(uint32_t row, uint32_t column) {
  return row * PANEL_ROW_BYTES + (((column / 8) ^ (row & 7)) * 16) + column % 8 * 2;
}

/** The same as a function of the address without swizzle: bits 4 to 6 are crossed with bits 7 to 9. */
FLASH_SHARED_CODE constexpr uint32_t swizzle_address(uint32_t byte) { return byte ^ ((byte >> 7 & 7) << 4); }

/** Byte of element (row, column) in a tile of `rows` rows: panel after panel. */
FLASH_SHARED_CODE constexpr uint32_t tile_byte(uint32_t rows, uint32_t row, uint32_t column) {
  return column / PANEL_COLUMNS * rows * PANEL_ROW_BYTES + swizzled_byte(row, column % PANEL_COLUMNS);
}

/** A matrix descriptor: start, leading and stride offsets in units of 16 bytes, 128-byte swizzle (1 in bits 62, 63). */
FLASH_SHARED_CODE constexpr uint64_t matrix_descriptor(uint32_t address, uint32_t leading_bytes,
                                                       uint32_t stride_bytes) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>((leading_bytes & 0x3ffff) >> 4) << 16 |
      static_cast<uint64_t>((stride_bytes & 0x3ffff) >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

/**
 * Rows are M (or N) and the sum runs along a row (K-major): groups of 8 rows lie 1024 bytes apart. The leading offset
 * is not used with a swizzle as wide as a row.
 */
FLASH_SHARED_CODE constexpr uint64_t row_descriptor(uint32_t address) {
  return matrix_descriptor(address, 16, SWIZZLE_BYTES);
}

/**
 * The sum runs down the rows and N runs along them, over panels of `rows` rows ("transposed", MN-major): groups of 8
 * rows lie 1024 bytes apart, panels a panel's size.
 */
FLASH_SHARED_CODE constexpr uint64_t column_descriptor(uint32_t address, uint32_t rows) {
  return matrix_descriptor(address, rows * PANEL_ROW_BYTES, SWIZZLE_BYTES);
}

/** What step `step` of the sum adds to the bytes of a row descriptor's start, in a tile of `rows` rows. */
FLASH_SHARED_CODE constexpr uint32_t row_step_bytes(int step, int rows) {
  return static_cast<uint32_t>(step / (PANEL_COLUMNS / STEP) * rows * PANEL_ROW_BYTES +
                               step % (PANEL_COLUMNS / STEP) * STEP * 2);
}

/** The same of a column descriptor: 16 rows further. */
FLASH_SHARED_CODE constexpr uint32_t column_step_bytes(int step) {
  return static_cast<uint32_t>(step * STEP * PANEL_ROW_BYTES);
}

/** Row and column of accumulator `i` of a thread of a warpgroup, in a product of 64 rows. */
FLASH_SHARED_CODE constexpr int accumulator_row(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + (i / 2 % 2) * 8;
}
FLASH_SHARED_CODE constexpr int accumulator_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

/** Row and column of half `half` (0: low) of register `i` of 4, where A is in registers. */
FLASH_SHARED_CODE constexpr int operand_row(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8;
}
FLASH_SHARED_CODE constexpr int operand_column(int thread, int i, int half) {
  return i / 2 * 8 + thread % 4 * 2 + half;
}

/** The first of the two accumulators that register `i` of step `step` takes: they are its A without any exchange. */
FLASH_SHARED_CODE constexpr int operand_source(int step, int i) { return step * 8 + i * 2; }

}  // namespace hopper
}  // namespace flash_attention
