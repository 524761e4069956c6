// Before the backward kernels: of every row the LSE in base 2 and D = rowsum(dO∘O) − dLSE, where params.h says. Sums of
// dQ that others will add to become 0.
#include "instances.h"
#include "mask.cuh"

using namespace flash_attention::cuda;

namespace {

/** Lanes of a row, so that each has several loads on their way: one row to a warp took 0.36 ms of D = 64, B·N·H = 2^19. */
constexpr int LANES = 8, ROWS = ROW_STATISTICS_ROWS;
static_assert(ROWS == 128 / LANES && TILE_ROWS % ROWS == 0, "rows of a block");

/** A lane's part of the sum over elements of two rows. */
__device__ __forceinline__ float part_of_product(const float* a, const float* b, int size, bool in_chunks) {
  const int first = threadIdx.x % LANES;
  float sum = 0;
  if (in_chunks) {
#pragma unroll 4
    for (int d = 4 * first; d < size; d += 4 * LANES) {
      const float4 x = *reinterpret_cast<const float4*>(a + d), y = *reinterpret_cast<const float4*>(b + d);
      sum = fmaf(x.x, y.x, fmaf(x.y, y.y, fmaf(x.z, y.z, fmaf(x.w, y.w, sum))));
    }
    return sum;
  }
  for (int d = first; d < size; d += LANES) {
    sum = fmaf(a[d], b[d], sum);
  }
  return sum;
}

}  // namespace

/** Grid: x canonical rows of a batch / ROWS, y query heads, z batches. */
extern "C" __global__ void __launch_bounds__(128, 8) flash_row_statistics(const __grid_constant__ Params p) {
  const int row = blockIdx.x * ROWS + threadIdx.x / LANES, head = blockIdx.y, batch = blockIdx.z;
  const SequencePlace sequence = p.places[batch];
  // TILE_ROWS is a multiple of a block's rows: all threads of a block go on or none.
  if (row >= (sequence.queries + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS) {
    return;
  }
  const int64_t to = head * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + row;
  for (int d = threadIdx.x % LANES * 4; p.d_q_sums && d < p.dp; d += 4 * LANES) {
    *reinterpret_cast<float4*>(p.d_q_sums + to * p.dp + d) = float4{0, 0, 0, 0};
  }
  const bool is_used = row < sequence.queries;
  const int64_t at = is_used ? lse_index(p, sequence, batch, head, row) : 0;
  const float lse = is_used ? p.lse[at] : -INFINITE;
  float delta = 0;
  if (lse != -INFINITE) {
    const RowStrides& strides = p.output_strides;
    const bool in_chunks = ((strides.base | strides.batch | strides.row | strides.head | p.value_size) & 3) == 0 &&
        ((reinterpret_cast<uintptr_t>(p.output) | reinterpret_cast<uintptr_t>(p.d_output)) & 15) == 0;
    const int64_t from = query_element(strides, sequence, batch, head, row);
    delta = part_of_product(p.output + from, p.d_output + from, p.value_size, in_chunks);
  }
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) {
    delta += __shfl_xor_sync(0xffffffffu, delta, step);
  }
  float high = INFINITE, low = 0;
  if (lse != -INFINITE) {
    delta -= p.d_lse ? p.d_lse[at] : 0.f;
    const double exact = (static_cast<double>(lse) + p.lse_tail[at]) * 1.44269504088896340736 - p.weight_exponent;
    high = static_cast<float>(exact);
    low = isfinite(high) ? static_cast<float>(exact - high) : 0.f;
  }
  if (threadIdx.x % LANES == 0) {
    p.lse_high[to] = high;
    p.lse_low[to] = low;
    p.delta[to] = delta;
  }
  const uint32_t most = largest_of_warp(isfinite(delta) ? __float_as_uint(fabsf(delta)) : 0u);
  uint32_t& of_group = p.groups[batch * p.key_heads + head / (p.query_heads / p.key_heads)].delta;
  // Read first: it only grows, and atomics of all warps at one word would wait for each other.
  if ((threadIdx.x & 31) == 0 && most > of_group) {
    atomicMax(&of_group, most);
  }
}
