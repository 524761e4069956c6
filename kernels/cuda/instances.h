// Every tile kernel that is built: the one list that the kernels, their plan and the build check read.
// FLASH_FORWARD(name, GENERAL, Kind, DP, warps, m-tiles a warp, keys, blocks) and FLASH_GRADIENT, see forward.cuh,
// gradient.cuh. Shared memory stays under 99 KiB, what sm_86, sm_89 and sm_120 have.
#pragma once

#define FLASH_FORWARD_INSTANCES(FLASH_FORWARD) \
  FLASH_FORWARD(bf16_64_plain, false, Bf16, 64, 4, 2, 64, 2) \
  FLASH_FORWARD(bf16_128_plain, false, Bf16, 128, 4, 2, 64, 1) \
  FLASH_FORWARD(bf16_256_plain, false, Bf16, 256, 4, 1, 32, 2) \
  FLASH_FORWARD(f16_64_plain, false, F16, 64, 4, 2, 64, 2) \
  FLASH_FORWARD(f16_128_plain, false, F16, 128, 4, 2, 64, 1) \
  FLASH_FORWARD(f16_256_plain, false, F16, 256, 4, 1, 32, 2) \
  FLASH_FORWARD(split_64_plain, false, SplitF16, 64, 4, 1, 64, 2) \
  FLASH_FORWARD(split_128_plain, false, SplitF16, 128, 4, 1, 32, 2) \
  FLASH_FORWARD(split_256_plain, false, SplitF16, 256, 4, 1, 16, 2) \
  FLASH_FORWARD(bf16_64_general, true, Bf16, 64, 4, 1, 64, 3) \
  FLASH_FORWARD(bf16_128_general, true, Bf16, 128, 4, 1, 64, 2) \
  FLASH_FORWARD(bf16_256_general, true, Bf16, 256, 4, 1, 32, 2) \
  FLASH_FORWARD(f16_64_general, true, F16, 64, 4, 1, 64, 3) \
  FLASH_FORWARD(f16_128_general, true, F16, 128, 4, 1, 64, 2) \
  FLASH_FORWARD(f16_256_general, true, F16, 256, 4, 1, 32, 2) \
  FLASH_FORWARD(split_64_general, true, SplitF16, 64, 4, 1, 64, 2) \
  FLASH_FORWARD(split_128_general, true, SplitF16, 128, 4, 1, 32, 2) \
  FLASH_FORWARD(split_256_general, true, SplitF16, 256, 4, 1, 16, 2)

/** Elements of a lane, rows together. */
#define FLASH_ROWS_INSTANCES(FLASH_ROWS) \
  FLASH_ROWS(2, 1) FLASH_ROWS(2, 4) FLASH_ROWS(2, 8) \
  FLASH_ROWS(4, 1) FLASH_ROWS(4, 4) FLASH_ROWS(4, 8) \
  FLASH_ROWS(8, 1) FLASH_ROWS(8, 4) FLASH_ROWS(8, 8)

/** Of the keys: merging reads them all. */
constexpr int MOST_PARTS = 256;
constexpr int MERGE_THREADS = 256;

/** Rows of a block of flash_row_statistics, 128 threads. */
constexpr int ROW_STATISTICS_ROWS = 16;

constexpr int ROW_WARPS = 4;
/** Keys of a step of a warp, no more than one sum of products to a lane. */
constexpr int rows_keys(int elements, int rows) { return elements > 4 || rows > 4 ? 4 : 8; }
/** Steps that are on their way: 64 KiB of a block's rows of k and v, so that three blocks fit Hopper's memory. */
constexpr int rows_stages(int elements, int rows) { return elements * rows_keys(elements, rows) >= 32 ? 2 : 4; }
/** Blocks that a multiprocessor has at once, by registers. */
constexpr int rows_blocks(int elements, int rows) { return elements * rows >= 32 ? 2 : 3; }
constexpr int rows_shared_bytes(int elements, int rows) {
  return ROW_WARPS * 4 *
      (2 * rows_stages(elements, rows) * rows_keys(elements, rows) * 32 * elements + rows * rows_keys(elements, rows));
}

/**
 * FLASH_NARROW and FLASH_WIDE(name, GENERAL, Kind, DP, warps, rows that come by, stages, columns at once): kernels for
 * dQ, and for dK and dV: one where registers hold the sums of both, else two.
 */
#define FLASH_GRADIENT_INSTANCES(FLASH_NARROW, FLASH_WIDE) \
  FLASH_NARROW(bf16_64_plain, false, Bf16, 64, 4, 64, 2, 32) \
  FLASH_NARROW(bf16_128_plain, false, Bf16, 128, 4, 64, 2, 32) \
  FLASH_NARROW(f16_64_plain, false, F16, 64, 4, 64, 2, 32) \
  FLASH_NARROW(f16_128_plain, false, F16, 128, 4, 64, 2, 32) \
  FLASH_NARROW(split_64_plain, false, SplitF16, 64, 4, 64, 2, 32) \
  FLASH_NARROW(bf16_64_general, true, Bf16, 64, 4, 64, 2, 32) \
  FLASH_NARROW(bf16_128_general, true, Bf16, 128, 4, 64, 2, 16) \
  FLASH_NARROW(f16_64_general, true, F16, 64, 4, 64, 2, 32) \
  FLASH_NARROW(f16_128_general, true, F16, 128, 4, 64, 2, 16) \
  FLASH_NARROW(split_64_general, true, SplitF16, 64, 4, 64, 2, 16) \
  FLASH_WIDE(split_128_plain, false, SplitF16, 128, 4, 32, 1, 32) \
  FLASH_WIDE(split_128_general, true, SplitF16, 128, 4, 32, 1, 16) \
  FLASH_WIDE(bf16_256_plain, false, Bf16, 256, 4, 32, 1, 16) \
  FLASH_WIDE(f16_256_plain, false, F16, 256, 4, 32, 1, 16) \
  FLASH_WIDE(split_256_plain, false, SplitF16, 256, 2, 16, 1, 16) \
  FLASH_WIDE(bf16_256_general, true, Bf16, 256, 4, 32, 1, 16) \
  FLASH_WIDE(f16_256_general, true, F16, 256, 4, 32, 1, 16) \
  FLASH_WIDE(split_256_general, true, SplitF16, 256, 2, 16, 1, 16)

/** FLASH_BIAS(name, Kind, DP, warps, keys of a tile, keys at once). */
#define FLASH_BIAS_INSTANCES(FLASH_BIAS) \
  FLASH_BIAS(bf16_64, Bf16, 64, 4, 64, 32) \
  FLASH_BIAS(bf16_128, Bf16, 128, 4, 64, 32) \
  FLASH_BIAS(bf16_256, Bf16, 256, 4, 32, 32) \
  FLASH_BIAS(f16_64, F16, 64, 4, 64, 32) \
  FLASH_BIAS(f16_128, F16, 128, 4, 64, 32) \
  FLASH_BIAS(f16_256, F16, 256, 4, 32, 32) \
  FLASH_BIAS(split_64, SplitF16, 64, 4, 64, 32) \
  FLASH_BIAS(split_128, SplitF16, 128, 4, 32, 32) \
  FLASH_BIAS(split_256, SplitF16, 256, 2, 16, 16)
