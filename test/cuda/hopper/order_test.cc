// Which tiles are taken, in which order, and what they need: every tile once, no visible pair outside of the ranges and
// no hidden pair in a tile that goes unmasked. And the fields of tensor maps.
#include <cmath>
#include <random>
#include <set>

#include "../../../kernels/cpu/sequences.h"
#include "../../../kernels/cuda/hopper/tensor_map.h"
#include "../../../kernels/cuda/hopper/tile_order.h"
#include "check.h"

using namespace flash_attention::hopper;

namespace {

void check_order(int heads, int tiles, int section, bool descending) {
  const TileOrder order = {heads, tiles, section, descending};
  std::set<int> seen;
  int last_section = 0, last_tile = -1;
  for (int index = 0; index < heads * tiles; index++) {
    const WorkTile work = work_tile(order, index);
    CHECK(work.head >= 0 && work.head < heads && work.tile >= 0 && work.tile < tiles);
    CHECK(seen.insert(work.head * tiles + work.tile).second);
    const int section_here = work.head / section;
    CHECK(section_here == last_section || section_here == last_section + 1);
    if (section_here == last_section && last_tile >= 0) {
      CHECK(descending ? work.tile <= last_tile : work.tile >= last_tile);
    }
    last_section = section_here;
    last_tile = work.tile;
  }
}

void check_ranges(std::mt19937& random) {
  const auto upto = [&](int most) { return static_cast<int>(random() % (most + 1)); };
  flash_attention::Problem problem;
  problem.query_length = upto(300);
  problem.key_length = upto(300);
  problem.bottom_right = upto(1) != 0;
  problem.window_left = upto(2) == 0 ? -1 : upto(200);
  problem.window_right = upto(2) == 0 ? -1 : upto(200);
  flash_attention::Sequence sequence = {0, upto(static_cast<int>(problem.query_length)), 0,
                                        upto(static_cast<int>(problem.key_length)), 0, problem.query_length};
  const Visibility sees = {static_cast<int>(sequence.queries), static_cast<int>(sequence.keys),
                           static_cast<int>(flash_attention::diagonal_offset(problem, sequence)),
                           static_cast<int>(problem.window_left), static_cast<int>(problem.window_right)};
  const auto is_visible = [&](int query, int key) {
    return key >= flash_attention::key_begin(problem, sequence, query) &&
        key < flash_attention::key_end(problem, sequence, query);
  };
  for (int query = 0; query < problem.query_length; query++) {
    for (int key = 0; key < problem.key_length; key++) {
      const bool expected = is_visible(query, key);
      CHECK((key >= sees.key_begin(query) && key < sees.key_end(query)) == expected);
      // From the key's side queries past the last are left out by its end.
      CHECK((query >= sees.query_begin(key) && query < sees.query_end(key)) == expected);
    }
  }
  const int rows = upto(1) ? 128 : 192;
  for (int size : {64, 80, 96, 128}) {
    for (int first = 0; first < problem.query_length; first += rows) {
      const TileRange range = key_tiles(sees, first, rows, size);
      CHECK(range.count() * size <= problem.key_length + size);
      for (int query = first; query < first + rows && query < sees.queries; query++) {
        for (int key = 0; key < problem.key_length + size; key++) {
          const int tile = key / size;
          const bool visible = key < problem.key_length && is_visible(query, key);
          CHECK(!visible || (tile >= range.first && tile < range.last));
          CHECK(visible || tile < range.first || tile >= range.last || !range.is_whole(tile));
        }
      }
    }
    for (int first = 0; first < problem.key_length; first += 128) {
      const TileRange range = query_tiles(sees, first, 128, size);
      for (int key = first; key < first + 128 && key < sees.keys; key++) {
        for (int query = 0; query < problem.query_length + size; query++) {
          const int tile = query / size;
          const bool visible = query < problem.query_length && is_visible(query, key);
          CHECK(!visible || (tile >= range.first && tile < range.last));
          CHECK(visible || tile < range.first || tile >= range.last || !range.is_whole(tile));
        }
      }
    }
  }
}

int calls = 0;
TensorMapFields given;
int encode_for_test(TensorMap*, int type, uint32_t rank, void*, const uint64_t* sizes, const uint64_t* strides,
                    const uint32_t* box, const uint32_t*, int interleave, int swizzle, int, int outside) {
  calls++;
  given.type = type;
  for (int i = 0; i < 3; i++) {
    given.sizes[i] = sizes[i];
    given.box[i] = box[i];
  }
  given.strides[0] = strides[0];
  given.strides[1] = strides[1];
  return rank == 3 && interleave == 0 && swizzle == 3 && outside == 0 ? 0 : 1;
}

void check_tensor_map() {
  TensorMap map;
  alignas(64) char memory[64];
  const TensorMapFields fields = tensor_map_fields(true, 6, 4096, 128, 176);
  CHECK(encode_tensor_map(encode_for_test, &map, memory, fields) == 0 && calls == 1);
  CHECK(given.type == 9 && given.sizes[0] == 128 && given.sizes[1] == 4096 && given.sizes[2] == 6);
  CHECK(given.strides[0] == 256 && given.strides[1] == 256 * 4096);
  CHECK(given.box[0] == 64 && given.box[1] == 176 && given.box[2] == 1);
  CHECK(tensor_map_fields(false, 1, 1, 64, 64).type == 6);
  CHECK(encode_tensor_map(encode_for_test, &map, memory + 2, fields) != 0);
  CHECK(encode_tensor_map(encode_for_test, &map, memory, tensor_map_fields(true, 1, 1, 64, 257)) != 0);
  CHECK(encode_tensor_map(nullptr, &map, memory, fields) != 0 && calls == 1);
}

}  // namespace

int main() {
  for (int heads : {1, 3, 8, 64}) {
    for (int tiles : {1, 2, 7, 33}) {
      for (int section : {1, 2, 3, 8, 64}) {
        check_order(heads, tiles, smaller(section, heads), section % 2 == 0);
      }
    }
  }
  CHECK(section_heads(64, 1, 2 << 20) == 12 && section_heads(64, 4, 2 << 20) == 48);
  CHECK(section_heads(8, 4, 1 << 30) == 4);
  std::mt19937 random(20261126);
  for (int i = 0; i < 300; i++) {
    check_ranges(random);
  }
  check_tensor_map();
  std::puts("order: ok");
  return 0;
}
