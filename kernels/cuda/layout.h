// Where elements are: tiles in shared memory, and the fragments of ldmatrix and mma.m16n8k16 (PTX ISA, "Matrix
// fragments for mma.m16n8k16"). Plain functions, so that test/cuda proves on a CPU that each element is covered once
// and no access has a bank conflict.
#pragma once

#include "params.h"

namespace flash_attention {
namespace cuda {

/** Bytes of an access of ldmatrix and cp.async, and the 16-bit elements in it. */
constexpr int CHUNK_BYTES = 16;
constexpr int CHUNK = 8;

/**
 * Where shared memory begins: at a multiple of the longest row, since chunks of a row change places by XOR of their
 * addresses. What a kernel declares beside it lies before it, so its declaration has to say this.
 */
constexpr int SHARED_ALIGNMENT = 512;

/**
 * Byte offset of a chunk of a tile of rows of DP elements: the chunks of a row change places by the row, so that the
 * same chunk of 8 neighbouring rows, and 8 chunks of one row, lie in all 32 banks.
 */
template <int DP>
FLASH_BOTH int chunk_offset(int row, int chunk) {
  return row * (DP * 2) + ((chunk ^ (row & 7)) * CHUNK_BYTES);
}

struct ChunkPlace {
  int row, chunk;
};

/** Of ldmatrix.x4: the row whose address a lane gives, for a left operand of 16 rows × 16 (rows are m). */
FLASH_BOTH ChunkPlace left_place(int lane) { return {(lane & 7) + ((lane >> 3) & 1) * 8, lane >> 4}; }

/** For a right operand of 16 × 16, two n-tiles, from rows that are n. Registers 0, 1: the first n-tile. */
FLASH_BOTH ChunkPlace right_place(int lane) { return {(lane & 7) + (lane >> 4) * 8, (lane >> 3) & 1}; }

/** For the same with .trans, from rows that are k. */
FLASH_BOTH ChunkPlace right_transposed_place(int lane) { return {(lane & 7) + ((lane >> 3) & 1) * 8, lane >> 4}; }

/** For a left operand with .trans, from rows that are k. */
FLASH_BOTH ChunkPlace left_transposed_place(int lane) { return {(lane & 7) + (lane >> 4) * 8, (lane >> 3) & 1}; }

/** Row and column of an accumulator's register in its 16×8 tile. */
FLASH_BOTH int accumulator_row(int lane, int i) { return (lane >> 2) + (i >> 1) * 8; }
FLASH_BOTH int accumulator_column(int lane, int i) { return (lane & 3) * 2 + (i & 1); }

}  // namespace cuda
}  // namespace flash_attention
