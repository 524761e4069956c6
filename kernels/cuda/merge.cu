// Joins the parts of the keys: each weighs as much as its denominator, brought to the largest score of all.
#include "instances.h"
#include "mask.cuh"

using namespace flash_attention::cuda;

namespace {

constexpr int WARPS = MERGE_THREADS / 32;
/** Columns of a lane, of 256 at most. */
constexpr int COLUMNS = 8;

}  // namespace

/** Grid: x rows of a unit, y units, z batches. Warps take parts in turn, so that most of them are read at once. */
extern "C" __global__ void __launch_bounds__(MERGE_THREADS, 4) flash_merge(const __grid_constant__ Params p) {
  __shared__ float weights[MOST_PARTS], sums[WARPS][32 * COLUMNS];
  const int row = blockIdx.x, unit = blockIdx.y, batch = blockIdx.z, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const SequencePlace sequence = place_of(p, batch);
  const RowPlace place = row_place(p, unit, row);
  if (place.query >= sequence.query_rows) {
    return;
  }
  const int64_t step = p.units * p.query_place.rows;
  const int64_t first = unit * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + row;
  float largest = -INFINITE;
  const auto take = [&](float here) { largest = here > largest || here != here ? here : largest; };
  for (int part = lane; part < p.parts; part += 32) {
    take(p.part_state[2 * (first + part * step)]);
  }
#pragma unroll
  for (int other = 16; other > 0; other /= 2) {
    take(__shfl_xor_sync(0xffffffffu, largest, other));
  }
  const float base = largest == -INFINITE ? 0.f : largest;
  double denominator = 0;
  for (int part = lane; part < p.parts; part += 32) {
    const int64_t at = first + part * step;
    const float own = p.part_state[2 * at + 1], weight = exp2f(p.part_state[2 * at] - base);
    denominator += own == 0 ? 0. : static_cast<double>(weight) * own;
    if (part % WARPS == warp) {
      weights[part] = own == 0 ? -1.f : weight;  // of this warp's parts; below 0: the part saw nothing
    }
  }
#pragma unroll
  for (int other = 16; other > 0; other /= 2) {
    denominator += __shfl_xor_sync(0xffffffffu, denominator, other);
  }
  __syncwarp();
  float sum[COLUMNS] = {};
#pragma unroll 4
  for (int part = warp; part < p.parts; part += WARPS) {
    const float weight = weights[part];
    const float* from = p.part_output + (first + part * step) * p.value_size;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const int d = lane + 32 * i;
      const float value = d < p.value_size ? from[d] : 0.f;
      sum[i] = weight < 0 ? sum[i] : fmaf(weight, value, sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < COLUMNS; i++) {
    sums[warp][lane + 32 * i] = sum[i];
  }
  __syncthreads();
  float* to = p.output + query_element(p.output_strides, sequence, batch, place.head, place.query);
  for (int d = threadIdx.x; d < p.value_size; d += MERGE_THREADS) {
    float all = 0;
#pragma unroll
    for (int n = 0; n < WARPS; n++) {
      all += sums[n][d];
    }
    to[d] = denominator == 0 ? 0.f : all / static_cast<float>(denominator);
  }
  if (threadIdx.x == 0) {
    store_lse(p, lse_index(p, sequence, batch, place.head, place.query), largest, denominator);
  }
}
