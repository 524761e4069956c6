// What comes before the tile kernels: where sequences lie, magnitudes, canonical operands (params.h).
//
// f16 needs a tensor's largest magnitude before its first element is written. Measuring first would read everything
// twice: 90 µs beside 163 of converting, of q, k and v of 16384 × 2048 on an H200. So flash_sample looks at a few rows
// and leaves room for what they do not hold; the conversion raises the magnitude, and notes the group, where it meets
// an element beyond that room; flash_convert_again_* converts those groups once more. The power of two depends on the
// data alone, whatever the order of blocks: it is the sample's, or by the largest of what lies beyond its room.
#include "mask.cuh"
#include "mma.cuh"

using namespace flash_attention::cuda;

namespace {

/** Tensors, and bits of Params::which and GroupState::again. */
enum class Source : int { q, k, v, d_output };
constexpr int SOURCES = 4;

/** Rows of a tensor of each group that flash_sample reads, and powers of two that it leaves above what it finds. */
constexpr int SAMPLED_ROWS = 64, SAMPLE_ROOM = 2;

__device__ __forceinline__ bool is_of_queries(Source source) {
  return source == Source::q || source == Source::d_output;
}
__device__ __forceinline__ bool is_wanted(const Params& p, Source source) {
  return p.which >> static_cast<int>(source) & 1;
}

/** A row's floats; no data past the sequence's end. */
struct SourceRow {
  const float* data;
  int size;
};

/** Row of a query head (of a key head for k and v). */
__device__ __forceinline__ SourceRow head_row(const Params& p, Source source, const SequencePlace& place, int batch,
                                              int head, int row) {
  switch (source) {
    case Source::q:
      return {p.q + query_element(p.q_strides, place, batch, head, row), p.head_size};
    case Source::d_output:
      return {p.d_output + query_element(p.output_strides, place, batch, head, row), p.value_size};
    case Source::k:
      return {p.k + key_element(p, p.k_strides, place, head, row), p.head_size};
    default:
      return {p.v + key_element(p, p.v_strides, place, head, row), p.value_size};
  }
}

/** `row` of a unit of a batch. */
__device__ __forceinline__ SourceRow source_row(const Params& p, Source source, const SequencePlace& place, int batch,
                                                int unit, int row) {
  if (is_of_queries(source)) {
    const RowPlace at = row_place(p, unit, row);
    return row >= p.unit_rows || at.query >= place.queries ? SourceRow{nullptr, 0}
                                                           : head_row(p, source, place, batch, at.head, at.query);
  }
  return row >= place.keys ? SourceRow{nullptr, 0} : head_row(p, source, place, batch, unit, row);
}

/** Chunk of 8 elements of a row: its floats, zeros where there are none. */
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

/** Canonical rows of a batch that a tile may read. */
__device__ __forceinline__ int rows_of_tiles(const Params& p, Source source, const SequencePlace& place) {
  const int rows = !is_of_queries(source) ? place.keys : p.heads_per_unit > 1 ? p.unit_rows : place.queries;
  return (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
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

/** Element 8·chunk on of canonical `row` of a unit of a batch. */
template <Pieces PIECES>
__device__ __forceinline__ void write_chunk(const Params& p, Source source, const SequencePlace& place, int batch,
                                            int unit, int row, int chunk, const float (&x)[8], float scale) {
  const bool is_query = is_of_queries(source);
  const CanonicalRows& rows = is_query ? p.query_place : p.key_place;
  const int64_t at = (unit * rows.rows + rows.start(batch, is_query ? place.query_first : place.key_first) + row) *
                         p.dp + chunk * 8;
  const Operand& to = source == Source::q ? p.q16 : source == Source::k ? p.k16
                                                  : source == Source::v ? p.v16 : p.d_output16;
  uint32_t high[4], low[4];
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

__device__ __forceinline__ float largest_of(const float (&x)[8]) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    largest = fmaxf(largest, fabsf(x[i]));
  }
  return largest;
}

/** Largest sum of squares of a row, for the bound of dS. All lanes of the warp come here. */
__device__ __forceinline__ void note_squares(const float (&x)[8], int chunks, uint32_t* squares_of_group) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    squares = fmaf(x[i], x[i], squares);
  }
  for (int step = chunks / 2; step > 0; step /= 2) {
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  const uint32_t most = largest_of_warp(__float_as_uint(squares));
  // Read first: it only grows, and atomics of all warps at one word would wait for each other.
  if ((threadIdx.x & 31) == 0 && most > *squares_of_group) {
    atomicMax(squares_of_group, most);
  }
}

/** The tensor and the unit that a block is for: y counts units of all tensors of Params::which. */
struct BlockPlace {
  Source source;
  int unit;
};

__device__ __forceinline__ BlockPlace block_place(const Params& p) {
  int unit = blockIdx.y;
  for (int n = 0; n < SOURCES; n++) {
    const Source source = static_cast<Source>(n);
    const int units = !is_wanted(p, source) ? 0 : is_of_queries(source) ? p.units : p.key_heads;
    if (unit < units) {
      return {source, unit};
    }
    unit -= units;
  }
  return {Source::q, 0};
}

/** Grid: x chunks of a unit's rows / 256, y units, z batches. */
template <Pieces PIECES>
__device__ __forceinline__ void convert_rows(const Params& p) {
  const int chunks = p.dp / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int row = static_cast<int>(index / chunks), chunk = static_cast<int>(index % chunks), batch = blockIdx.z;
  const BlockPlace of = block_place(p);
  const SequencePlace place = p.places[batch];
  // TILE_ROWS is a multiple of a block's rows: all threads of a block go on or none.
  if (row >= rows_of_tiles(p, of.source, place)) {
    return;
  }
  const int key_head = is_of_queries(of.source) ? key_head_of(p, of.unit) : of.unit;
  GroupState& group = p.groups[batch * p.key_heads + key_head];
  float x[8];
  read_chunk(source_row(p, of.source, place, batch, of.unit, row), chunk * 8, x);
  if (clear_odd(x)) {
    group.odd = 1;
  }
  float scale = 1;
  if (PIECES != Pieces::bf16) {
    // As the sample has it, or raised already by another block: then this group is converted again.
    uint32_t& magnitude = *largest_of_group(group, of.source);
    const uint32_t assumed = magnitude, largest = __float_as_uint(largest_of(x));
    if (largest > (assumed == 0 ? 0 : assumed | 0x7fffff)) {
      atomicMax(&magnitude, largest);
      atomicOr(&group.again, 1u << static_cast<int>(of.source));
    }
    scale = power_of_two(exponent_for(assumed));
    if (p.d_output && (of.source == Source::v || of.source == Source::d_output)) {
      note_squares(x, chunks, of.source == Source::v ? &group.v_squares : &group.d_output_squares);
    }
  }
  write_chunk<PIECES>(p, of.source, place, batch, of.unit, row, chunk, x, scale);
}

/** Grid: x parts of a group's rows, y key heads, z batches: most blocks find nothing to do. */
template <Pieces PIECES>
__device__ __forceinline__ void convert_again(const Params& p) {
  const int key_head = blockIdx.y, batch = blockIdx.z;
  const GroupState& group = p.groups[batch * p.key_heads + key_head];
  if (group.again == 0) {
    return;
  }
  const SequencePlace place = p.places[batch];
  const int chunks = p.dp / 8;
  for (int n = 0; n < SOURCES; n++) {
    const Source source = static_cast<Source>(n);
    if (!(group.again >> n & 1)) {
      continue;
    }
    const int units = is_of_queries(source) ? p.units / p.key_heads : 1, rows = rows_of_tiles(p, source, place);
    const float scale = power_of_two(exponent_for(*largest_of_group(p.groups[batch * p.key_heads + key_head], source)));
    const int64_t each = static_cast<int64_t>(rows) * chunks;
    for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < units * each;
         index += static_cast<int64_t>(gridDim.x) * blockDim.x) {
      const int unit = key_head * units + static_cast<int>(index / each);
      const int row = static_cast<int>(index % each / chunks), chunk = static_cast<int>(index % chunks);
      float x[8];
      read_chunk(source_row(p, source, place, batch, unit, row), chunk * 8, x);
      clear_odd(x);
      write_chunk<PIECES>(p, source, place, batch, unit, row, chunk, x, scale);
    }
  }
}

}  // namespace

/** One block: places of all batches, and all groups and counters cleared. For bf16, which needs no magnitudes. */
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

/** The same, and magnitudes to begin with, of the tensors in Params::which. Grid: x key heads, y batches. */
extern "C" __global__ void __launch_bounds__(256) flash_sample(const __grid_constant__ Params p) {
  const int key_head = blockIdx.x, batch = blockIdx.y;
  const SequencePlace place = place_of(p, batch);
  __shared__ uint32_t largest[SOURCES];
  if (threadIdx.x < SOURCES) {
    largest[threadIdx.x] = 0;
  }
  __syncthreads();
  const int chunks = p.dp / 8, chunk = threadIdx.x % chunks;
  for (int n = 0; n < SOURCES; n++) {
    const Source source = static_cast<Source>(n);
    const int heads = is_of_queries(source) ? p.query_heads / p.key_heads : 1;
    const int rows = is_of_queries(source) ? place.queries : place.keys;
    float most = 0;
    for (int row = threadIdx.x / chunks; is_wanted(p, source) && rows > 0 && row < SAMPLED_ROWS;
         row += blockDim.x / chunks) {
      const int at = static_cast<int>(static_cast<int64_t>(row) * rows / SAMPLED_ROWS);
      float x[8];
      read_chunk(head_row(p, source, place, batch, key_head * heads + row % heads, at), chunk * 8, x);
      clear_odd(x);
      most = fmaxf(most, largest_of(x));
    }
    const uint32_t of_warp = largest_of_warp(__float_as_uint(most));
    if ((threadIdx.x & 31) == 0) {
      atomicMax(&largest[n], of_warp);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto with_room = [](uint32_t bits) {
      constexpr uint32_t MOST = 0x7f7fffff;
      return bits == 0 ? 0u : bits + (SAMPLE_ROOM << 23) < MOST ? bits + (SAMPLE_ROOM << 23) : MOST;
    };
    GroupState state = {};
    state.q = with_room(largest[0]);
    state.k = with_room(largest[1]);
    state.v = with_room(largest[2]);
    state.d_output = with_room(largest[3]);
    p.groups[batch * p.key_heads + key_head] = state;
    if (key_head == 0) {
      p.places[batch] = place;
    }
  }
  if (key_head == 0 && batch == 0 && threadIdx.x < TILE_COUNTERS) {
    p.tile_counters[threadIdx.x] = 0;
  }
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_bf16(const __grid_constant__ Params p) {
  convert_rows<Pieces::bf16>(p);
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_f16(const __grid_constant__ Params p) {
  convert_rows<Pieces::f16>(p);
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_split(const __grid_constant__ Params p) {
  convert_rows<Pieces::split>(p);
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_again_f16(const __grid_constant__ Params p) {
  convert_again<Pieces::f16>(p);
}

extern "C" __global__ void __launch_bounds__(256) flash_convert_again_split(const __grid_constant__ Params p) {
  convert_again<Pieces::split>(p);
}

/** Zeros: rows of `size` elements that no sequence may hold. Grid: x rows, y heads, z batches. */
extern "C" __global__ void flash_clear_rows(const __grid_constant__ ClearParams p) {
  float* row = p.data + p.strides.base + blockIdx.z * p.strides.batch + blockIdx.x * p.strides.row +
               blockIdx.y * p.strides.head;
  for (int d = threadIdx.x; d < p.size; d += blockDim.x) {
    row[d] = 0;
  }
}
