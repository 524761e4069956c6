// The index maps of kernels/cuda/hopper/layouts.h against models of what the hardware does, written from the PTX ISA:
// TMA writes a box with the swizzle, wgmma finds operands by its descriptors, and products come out in the
// accumulators.
#include "../../../kernels/cuda/hopper/layouts.h"

#include <set>
#include <vector>

#include "../../../kernels/cuda/hopper/plans.h"
#include "check.h"

using namespace flash_attention::hopper;

namespace {

/** Element (row, column) as a number that no other has. */
int name_of(int row, int column) { return row * 1000 + column; }

/**
 * Shared memory after TMA has written a tile: boxes of 64 columns, each row's 16-byte chunks crossed with the row
 * number modulo 8, that is with bits 7 to 9 of the byte's address ("Tensor swizzling modes", 128B).
 */
std::vector<int> write_tile(uint32_t base, int rows, int columns) {
  std::vector<int> memory((base + rows * columns * 2) / 2, -1);
  for (int panel = 0; panel < columns / 64; panel++) {
    const uint32_t start = base + panel * rows * 128;
    for (int row = 0; row < rows; row++) {
      for (int chunk = 0; chunk < 8; chunk++) {
        const uint32_t line = start + row * 128;
        const uint32_t to = line + (chunk ^ (line / 128 % 8)) * 16;
        for (int i = 0; i < 8; i++) {
          memory[to / 2 + i] = name_of(row, panel * 64 + chunk * 8 + i);
        }
      }
    }
  }
  return memory;
}

struct Fields {
  uint32_t start, leading, stride, swizzle;
};

Fields decode(uint64_t descriptor) {
  return {static_cast<uint32_t>(descriptor & 0x3fff) * 16, static_cast<uint32_t>(descriptor >> 16 & 0x3fff) * 16,
          static_cast<uint32_t>(descriptor >> 32 & 0x3fff) * 16, static_cast<uint32_t>(descriptor >> 62)};
}

/** The swizzle is applied to the address that the unswizzled layout comes to. */
int read(const std::vector<int>& memory, uint32_t address) {
  return memory[(address ^ (address >> 7 & 7) << 4) / 2];
}

/**
 * Element (row, k) of a K-major operand, 128-byte swizzle: in units of 16 bytes ((8, m), 2) : ((8, stride), 1) of rows
 * and k ("Strides", "Canonical layouts").
 */
int read_row_operand(const std::vector<int>& memory, uint64_t descriptor, int row, int k) {
  const Fields at = decode(descriptor);
  return read(memory, at.start + row % 8 * 128 + row / 8 * at.stride + k / 8 * 16 + k % 8 * 2);
}

/** Element (n, k) of an MN-major operand: ((8, n), (8, k)) : ((1, leading), (8, stride)) in units of 16 bytes. */
int read_column_operand(const std::vector<int>& memory, uint64_t descriptor, int n, int k) {
  const Fields at = decode(descriptor);
  return read(memory, at.start + n % 64 / 8 * 16 + n % 8 * 2 + n / 64 * at.leading + k % 8 * 128 + k / 8 * at.stride);
}

void check_descriptors(int rows, int columns) {
  const uint32_t base = 3 * SWIZZLE_BYTES;
  const std::vector<int> memory = write_tile(base, rows, columns);
  for (int row = 0; row < rows; row++) {
    for (int column = 0; column < columns; column++) {
      CHECK(memory[(base + tile_byte(rows, row, column)) / 2] == name_of(row, column));
    }
  }
  for (int panel = 0; panel < columns / 64; panel++) {
    CHECK(swizzle_address(base + panel * rows * 128 + 3 * 128 + 5 * 16) ==
          base + panel * rows * 128 + swizzled_byte(3, 40));
  }
  // Rows of a warpgroup from any multiple of 8 on: what A of Q and K is, and B of K and Q.
  for (int first = 0; first < rows; first += 64) {
    for (int step = 0; step < columns / STEP; step++) {
      const uint64_t descriptor =
          row_descriptor(base + first * PANEL_ROW_BYTES) + row_step_bytes(step, rows) / 16;
      CHECK(decode(descriptor).swizzle == 1);
      for (int row = 0; row < 64 && first + row < rows; row++) {
        for (int k = 0; k < STEP; k++) {
          CHECK(read_row_operand(memory, descriptor, row, k) == name_of(first + row, step * STEP + k));
        }
      }
    }
  }
  for (int step = 0; step < rows / STEP; step++) {
    const uint64_t descriptor = column_descriptor(base, rows) + column_step_bytes(step) / 16;
    for (int n = 0; n < columns; n++) {
      for (int k = 0; k < STEP; k++) {
        CHECK(read_column_operand(memory, descriptor, n, k) == name_of(step * STEP + k, n));
      }
    }
  }
}

/** Steps never carry from one field of a descriptor into the next, up to the end of shared memory. */
void check_fields() {
  for (uint32_t address = 0; address + 1024 <= SHARED_BYTES; address += 1024) {
    for (int rows : {64, 80, 96, 128, 176, 192, 256}) {
      for (int step = 0; step < 16; step++) {
        const Fields at = decode(column_descriptor(address, rows) + column_step_bytes(step) / 16);
        if (address + column_step_bytes(step) < SHARED_BYTES) {
          CHECK(at.start == address + column_step_bytes(step));
          CHECK(at.leading == static_cast<uint32_t>(rows) * 128 && at.stride == 1024 && at.swizzle == 1);
        }
      }
    }
  }
}

/** "Matrix fragments for wgmma": D of m64nN, and A of m64k16 in registers, as the tables of the PTX ISA have them. */
void check_fragments(int columns) {
  std::set<int> seen;
  for (int thread = 0; thread < GROUP_THREADS; thread++) {
    for (int i = 0; i < columns / 2; i++) {
      const int row = accumulator_row(thread, i), column = accumulator_column(thread, i);
      // %laneid >> 2 and 16·warp, + 8 for every second pair; columns 8·(i / 4) + 2·(%laneid % 4) + i % 2.
      CHECK(row >= thread / 32 * 16 && row < thread / 32 * 16 + 16 && column >= 0 && column < columns);
      CHECK(seen.insert(name_of(row, column)).second);
    }
  }
  CHECK(static_cast<int>(seen.size()) == 64 * columns);
  for (int step = 0; step < columns / STEP; step++) {
    for (int thread = 0; thread < GROUP_THREADS; thread++) {
      for (int i = 0; i < 4; i++) {
        for (int half = 0; half < 2; half++) {
          const int source = operand_source(step, i) + half;
          CHECK(accumulator_row(thread, source) == operand_row(thread, i));
          CHECK(accumulator_column(thread, source) == step * STEP + operand_column(thread, i, half));
        }
      }
    }
  }
  seen.clear();
  for (int thread = 0; thread < GROUP_THREADS; thread++) {
    for (int i = 0; i < 8; i++) {
      CHECK(seen.insert(name_of(operand_row(thread, i / 2), operand_column(thread, i / 2, i % 2))).second);
    }
  }
  CHECK(static_cast<int>(seen.size()) == 64 * STEP);
}

template <typename Plan>
void check_plan() {
  CHECK(Plan::BARRIERS_AT % 8 == 0 && Plan::THREADS <= 1024);
  CHECK((RegisterShare<Plan::CONSUMERS>::PRODUCER % 8) == 0 && (RegisterShare<Plan::CONSUMERS>::CONSUMER % 8) == 0);
}

}  // namespace

int main() {
  for (int rows : {64, 80, 96, 128, 176, 192, 256}) {
    for (int columns : {64, 128, 256}) {
      check_descriptors(rows, columns);
    }
  }
  for (int columns : {64, 80, 96, 112, 128, 160, 176, 192, 256}) {
    check_fragments(columns);
  }
  check_fields();
  check_plan<Forward64>();
  check_plan<Forward128>();
  check_plan<Forward256>();
  check_plan<KeyGradient64>();
  check_plan<KeyGradient128>();
  check_plan<QueryGradient64>();
  check_plan<QueryGradient128>();
  CHECK(Forward64::KEYS_AT % SWIZZLE_BYTES == 0 && Forward256::VALUES_AT % SWIZZLE_BYTES == 0);
  CHECK(KeyGradient64::D_OUTPUTS_AT % SWIZZLE_BYTES == 0 && KeyGradient64::ROWS_AT % 16 == 0);
  CHECK(QueryGradient128::VALUES_AT % SWIZZLE_BYTES == 0);
  std::puts("layouts: ok");
  return 0;
}
