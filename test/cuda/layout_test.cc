// kernels/cuda/layout.h and scales.h: each element of a fragment is loaded once and from where mma wants it, tiles are
// covered once, and no access of 8 lanes (a phase of ldmatrix, a quarter warp of 16-byte stores) meets a bank twice.
#include "layout.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>

#include "scales.h"

using namespace flash_attention::cuda;

namespace {

int failures = 0;

void expect(bool holds, const char* what, int detail = 0) {
  if (!holds) {
    std::printf("FAILED: %s (%d)\n", what, detail);
    failures++;
  }
}

/** Banks of 4 bytes that 16 bytes at an offset lie in. */
bool are_apart(const int (&offsets)[8]) {
  std::set<int> banks;
  for (int offset : offsets) {
    for (int byte = 0; byte < 16; byte += 4) {
      if (!banks.insert((offset + byte) / 4 % 32).second) {
        return false;
      }
    }
  }
  return true;
}

template <int DP>
void test_tile() {
  constexpr int ROWS = 128;
  std::set<int> offsets;
  for (int row = 0; row < ROWS; row++) {
    for (int chunk = 0; chunk < DP / CHUNK; chunk++) {
      const int offset = chunk_offset<DP>(row, chunk);
      expect(offset >= 0 && offset + CHUNK_BYTES <= ROWS * DP * 2 && offset % CHUNK_BYTES == 0, "inside", offset);
      expect(offsets.insert(offset).second, "once", offset);
    }
  }
  // Copies: 8 lanes write 8 neighbouring chunks of the canonical rows.
  for (int first = 0; first < ROWS * DP / CHUNK; first += 8) {
    int of[8];
    for (int n = 0; n < 8; n++) {
      of[n] = chunk_offset<DP>((first + n) / (DP / CHUNK), (first + n) % (DP / CHUNK));
    }
    expect(are_apart(of), "banks of copies", first);
  }
  // As copy_tile steps from round to round, and the products from chunk to chunk.
  for (int threads : {64, 128}) {
    const int of_row = DP / CHUNK, at_once = threads / of_row;
    for (int thread = 0; thread < threads; thread++) {
      const int row = thread / of_row, chunk = thread % of_row;
      for (int round = 0; round * at_once + row < ROWS; round++) {
        const int first = chunk_offset<DP>(row, chunk) ^ ((round * at_once & 7) * CHUNK_BYTES);
        const int at = first + round * at_once * DP * 2;
        expect(at == chunk_offset<DP>(row + round * at_once, chunk), "rounds of copies", thread);
      }
    }
  }
  ChunkPlace (*const places[])(int) = {left_place, right_place, right_transposed_place, left_transposed_place};
  for (const auto place : places) {
    for (int step = 0; step < DP / CHUNK; step += 2) {
      for (int row = 0; row < ROWS; row += 16) {
        for (int phase = 0; phase < 4; phase++) {
          int of[8];
          for (int n = 0; n < 8; n++) {
            const ChunkPlace at = place(phase * 8 + n);
            of[n] = chunk_offset<DP>(row + at.row, step + at.chunk);
            expect(of[n] == (chunk_offset<DP>(at.row, at.chunk) ^ (step * CHUNK_BYTES)) + row * DP * 2, "steps", n);
          }
          expect(are_apart(of), "banks of ldmatrix", step);
        }
      }
    }
  }
}

/** What ldmatrix.x4 gives lane `lane` in half `i` of register `matrix`: row and column of 16 × 16. */
void loaded(ChunkPlace (*place)(int), bool transposed, int lane, int matrix, int i, int* row, int* column) {
  const int of_matrix_row = transposed ? lane % 4 * 2 + i : lane / 4;
  const int of_matrix_column = transposed ? lane / 4 : lane % 4 * 2 + i;
  const ChunkPlace at = place(matrix * 8 + of_matrix_row);
  *row = at.row;
  *column = at.chunk * 8 + of_matrix_column;
}

void test_fragments() {
  for (int lane = 0; lane < 32; lane++) {
    for (int matrix = 0; matrix < 4; matrix++) {
      for (int i = 0; i < 2; i++) {
        int row, column;
        const int m = lane / 4 + matrix % 2 * 8, k = lane % 4 * 2 + i + matrix / 2 * 8;
        loaded(left_place, false, lane, matrix, i, &row, &column);
        expect(row == m && column == k, "left", lane);
        loaded(left_transposed_place, true, lane, matrix, i, &row, &column);
        expect(row == k && column == m, "left, transposed", lane);
        const int of_tile_n = lane / 4 + matrix / 2 * 8, of_k = lane % 4 * 2 + i + matrix % 2 * 8;
        loaded(right_place, false, lane, matrix, i, &row, &column);
        expect(row == of_tile_n && column == of_k, "right", lane);
        loaded(right_transposed_place, true, lane, matrix, i, &row, &column);
        expect(row == of_k && column == of_tile_n, "right, transposed", lane);
      }
    }
    // Two accumulators of 16×8 are a left operand of 16×16 without a move: register (n & 1)·2 + half.
    for (int n = 0; n < 2; n++) {
      for (int i = 0; i < 4; i++) {
        const int reg = n * 2 + i / 2;
        expect(accumulator_row(lane, i) == lane / 4 + reg % 2 * 8, "rows of weights", lane);
        expect(accumulator_column(lane, i) + n * 8 == lane % 4 * 2 + i % 2 + reg / 2 * 8, "columns of weights", lane);
      }
    }
  }
}

void test_scales() {
  for (float magnitude : {1e-38f, 1e-20f, 0.5f, 1.f, 1.999f, 3e4f, 1e20f, 3.4e38f}) {
    uint32_t bits;
    std::memcpy(&bits, &magnitude, 4);
    const int exponent = exponent_for(bits);
    expect(std::isnormal(power_of_two(exponent)) && std::isnormal(power_of_two(-exponent)), "normal", exponent);
    const float scaled = magnitude * power_of_two(exponent);
    expect(scaled < 32768.f && (scaled >= 16384.f || magnitude < 1e-32f), "range of f16", exponent);
  }
  expect(exponent_for(0) == 0 && power_of_two(0) == 1.f, "nothing measured: no scale");
}

void test_canonical_rows() {
  // Sequences end to end: no two share a tile of rows, all lie inside what the plan counts.
  for (int seed = 1; seed < 200; seed++) {
    const int lengths[4] = {seed * 37 % 300, seed * 91 % 200, seed % 3 == 0 ? 0 : seed * 13 % 257, seed % 129};
    int all = 0;
    for (int length : lengths) {
      all += length;
    }
    const int64_t rows = (all + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS + 4 * TILE_ROWS;
    const CanonicalRows place = {rows, 0};
    int64_t end = 0;
    int first = 0;
    for (int batch = 0; batch < 4; batch++) {
      const int64_t start = place.start(batch, first);
      expect(start >= end && start % TILE_ROWS == 0, "sequences lie apart", seed);
      end = start + (lengths[batch] + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
      expect(end <= rows, "inside", seed);
      first += lengths[batch];
    }
  }
}

}  // namespace

int main() {
  test_tile<64>();
  test_tile<128>();
  test_tile<256>();
  test_fragments();
  test_scales();
  test_canonical_rows();
  std::printf("layout: %d failed\n", failures);
  return failures > 0;
}
