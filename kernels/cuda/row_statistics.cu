// Before the backward kernels: of every row the LSE in base 2 and D = rowsum(dO∘O) − dLSE, where params.h says. Sums of
// dQ that others will add to become 0.
#include "mask.cuh"

using namespace flash_attention::cuda;

/** Grid: x canonical rows of a batch / 4, y query heads, z batches; a warp of the 128 threads for each row. */
extern "C" __global__ void __launch_bounds__(128, 8) flash_row_statistics(const __grid_constant__ Params p) {
  const int row = blockIdx.x * 4 + (threadIdx.x >> 5), head = blockIdx.y, batch = blockIdx.z, lane = threadIdx.x & 31;
  const SequencePlace sequence = p.places[batch];
  if (row >= (sequence.queries + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS) {
    return;
  }
  const int64_t to = head * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + row;
  if (p.d_q_sums && lane * 4 < p.dp) {
    *reinterpret_cast<float4*>(p.d_q_sums + to * p.dp + lane * 4) = float4{0, 0, 0, 0};
  }
  float high = INFINITE, low = 0, delta = 0;
  if (row < sequence.queries) {
    const int64_t at = lse_index(p, sequence, batch, head, row);
    const float lse = p.lse[at];
    if (lse != -INFINITE) {
      const int64_t from = query_element(p.output_strides, sequence, batch, head, row);
      for (int d = lane; d < p.value_size; d += 32) {
        delta = fmaf(p.output[from + d], p.d_output[from + d], delta);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) {
        delta += __shfl_xor_sync(0xffffffffu, delta, step);
      }
      delta -= p.d_lse ? p.d_lse[at] : 0.f;
      const double exact = (static_cast<double>(lse) + p.lse_tail[at]) * 1.44269504088896340736 - p.weight_exponent;
      high = static_cast<float>(exact);
      low = isfinite(high) ? static_cast<float>(exact - high) : 0.f;
    }
  }
  if (lane == 0) {
    p.lse_high[to] = high;
    p.lse_low[to] = low;
    p.delta[to] = delta;
    if (isfinite(delta) && delta != 0) {
      atomicMax(&p.groups[batch * p.key_heads + head / (p.query_heads / p.key_heads)].delta,
                __float_as_uint(fabsf(delta)));
    }
  }
}
