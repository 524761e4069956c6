// What comes before the tile kernels: where sequences lie, magnitudes, canonical operands (params.h).
#include "mask.cuh"
#include "mma.cuh"

using namespace flash_attention::cuda;

namespace {

/** Which tensor a launch converts. */
enum class Source : int { q, k, v, d_output };

/** Chunk of 8 elements of a canonical row: its floats, zeros where there are none. */
struct SourceRow {
  const float* data;
  int size;
  int key_head;
};

/** `row` of a unit of a batch; no data past the sequence's end. */
__device__ __forceinline__ SourceRow source_row(const Params& p, Source source, int batch, int unit, int row) {
  const SequencePlace place = p.places[batch];
  const bool is_query = source == Source::q || source == Source::d_output;
  if (is_query) {
    const int key_head = key_head_of(p, unit);
    const RowPlace at = row_place(p, unit, row);
    if (row >= p.unit_rows || at.query >= place.queries) {
      return {nullptr, 0, key_head};
    }
    return source == Source::q
        ? SourceRow{p.q + query_element(p.q_strides, place, batch, at.head, at.query), p.head_size, key_head}
        : SourceRow{p.d_output + query_element(p.output_strides, place, batch, at.head, at.query), p.value_size,
                    key_head};
  }
  if (row >= place.keys) {
    return {nullptr, 0, unit};
  }
  return source == Source::k ? SourceRow{p.k + key_element(p, p.k_strides, place, unit, row), p.head_size, unit}
                             : SourceRow{p.v + key_element(p, p.v_strides, place, unit, row), p.value_size, unit};
}

__device__ __forceinline__ void read_chunk(const SourceRow& row, int d, float (&x)[8]) {
  const float* from = row.data + d;
  if (row.data && d + 8 <= row.size && (reinterpret_cast<uintptr_t>(from) & 15) == 0) {
    const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    x[i] = row.data && d + i < row.size ? from[i] : 0.f;
  }
}

/** NaN and infinities become 0; gives whether there were any. */
__device__ __forceinline__ bool clear_odd(float (&x)[8]) {
  bool odd = false;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const bool here = !isfinite(x[i]);
    odd = odd || here;
    x[i] = here ? 0.f : x[i];
  }
  return odd;
}

/** Rows of a batch from canonical `row` on that a tile may read, or −1: the rest of the grid has nothing to do. */
__device__ __forceinline__ bool is_in_tiles(const Params& p, Source source, int batch, int row) {
  const bool is_query = source == Source::q || source == Source::d_output;
  const SequencePlace place = p.places[batch];
  const int rows = !is_query ? place.keys : p.heads_per_unit > 1 ? p.unit_rows : place.queries;
  return row < (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
}

__device__ __forceinline__ uint32_t largest_of_warp(uint32_t x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
  }
  return x;
}

__device__ __forceinline__ uint32_t* largest_of_group(GroupState& group, Source source) {
  return source == Source::q ? &group.q
      : source == Source::k  ? &group.k
      : source == Source::v  ? &group.v
                             : &group.d_output;
}

/** bf16 stops at the largest finite number instead of rounding up to infinity. */
__device__ __forceinline__ float bounded_bf16(float x) {
  constexpr float MOST = 3.3895313892515355e38f;
  return fminf(fmaxf(x, -MOST), MOST);
}

enum class Pieces { bf16, f16, split };

template <Pieces PIECES>
__device__ __forceinline__ void convert_rows(const Params& p, Source source) {
  const int chunks = p.dp / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int row = static_cast<int>(index / chunks), chunk = static_cast<int>(index % chunks);
  const int unit = blockIdx.y, batch = blockIdx.z;
  if (!is_in_tiles(p, source, batch, row)) {
    return;
  }
  const SourceRow from = source_row(p, source, batch, unit, row);
  GroupState& group = p.groups[batch * p.key_heads + from.key_head];
  float x[8];
  read_chunk(from, chunk * 8, x);
  if (clear_odd(x)) {
    group.odd = 1;
  }
  const bool is_query = source == Source::q || source == Source::d_output;
  const SequencePlace place = p.places[batch];
  const CanonicalRows& rows = is_query ? p.query_place : p.key_place;
  const int64_t at = (unit * rows.rows + rows.start(batch, is_query ? place.query_first : place.key_first) + row) *
                         p.dp + chunk * 8;
  const Operand& to = source == Source::q ? p.q16 : source == Source::k ? p.k16
                                                  : source == Source::v ? p.v16 : p.d_output16;
  uint32_t high[4], low[4];
  const float scale = PIECES == Pieces::bf16 ? 1.f : power_of_two(exponent_for(*largest_of_group(group, source)));
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (PIECES == Pieces::bf16) {
      high[i] = Bf16::pack(bounded_bf16(x[2 * i]), bounded_bf16(x[2 * i + 1]));
    } else {
      uint32_t pieces[2];
      pack_pieces<SplitF16>(x[2 * i] * scale, x[2 * i + 1] * scale, pieces);
      high[i] = pieces[0];
      low[i] = pieces[1];
    }
  }
  *reinterpret_cast<uint4*>(to.high + at) = make_uint4(high[0], high[1], high[2], high[3]);
  if (PIECES == Pieces::split) {
    *reinterpret_cast<uint4*>(to.low + at) = make_uint4(low[0], low[1], low[2], low[3]);
  }
}

}  // namespace

/** One block: places of all batches, and all groups and counters cleared. */
extern "C" __global__ void flash_locate(const __grid_constant__ Params p) {
  for (int batch = threadIdx.x; batch < p.batch; batch += blockDim.x) {
    p.places[batch] = place_of(p, batch);
  }
  for (int group = threadIdx.x; group < p.batch * p.key_heads; group += blockDim.x) {
    p.groups[group] = GroupState{};
  }
  if (threadIdx.x < TILE_COUNTERS) {
    p.tile_counters[threadIdx.x] = 0;
  }
}

/** Largest magnitudes and sums of squares, for f16 and split f16. Grid and threads as flash_convert's. */
extern "C" __global__ void __launch_bounds__(256) flash_measure(const __grid_constant__ Params p) {
  const Source source = static_cast<Source>(p.which);
  const int chunks = p.dp / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int row = static_cast<int>(index / chunks), chunk = static_cast<int>(index % chunks);
  const SourceRow from = source_row(p, source, blockIdx.z, blockIdx.y, row);
  float x[8];
  read_chunk(from, chunk * 8, x);
  clear_odd(x);
  float largest = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    largest = fmaxf(largest, fabsf(x[i]));
    squares = fmaf(x[i], x[i], squares);
  }
  for (int step = chunks / 2; step > 0; step /= 2) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  const uint32_t most = largest_of_warp(__float_as_uint(largest));
  const uint32_t most_squares = largest_of_warp(__float_as_uint(squares));
  if ((threadIdx.x & 31) == 0 && most != 0) {
    GroupState& group = p.groups[blockIdx.z * p.key_heads + from.key_head];
    atomicMax(largest_of_group(group, source), most);
    if (source == Source::v || source == Source::d_output) {
      atomicMax(source == Source::v ? &group.v_squares : &group.d_output_squares, most_squares);
    }
  }
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_bf16(const __grid_constant__ Params p) {
  convert_rows<Pieces::bf16>(p, static_cast<Source>(p.which));
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_f16(const __grid_constant__ Params p) {
  convert_rows<Pieces::f16>(p, static_cast<Source>(p.which));
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_split(const __grid_constant__ Params p) {
  convert_rows<Pieces::split>(p, static_cast<Source>(p.which));
}

/** Zeros: rows of `size` elements that no sequence may hold. Grid: x rows, y heads, z batches. */
extern "C" __global__ void flash_clear_rows(const __grid_constant__ ClearParams p) {
  float* row = p.data + p.strides.base + blockIdx.z * p.strides.batch + blockIdx.x * p.strides.row +
               blockIdx.y * p.strides.head;
  for (int d = threadIdx.x; d < p.size; d += blockDim.x) {
    row[d] = 0;
  }
}
