// Joins the parts of the keys: each weighs as much as its denominator, brought to the largest score of all.
#include "mask.cuh"

using namespace flash_attention::cuda;

/** Grid: x rows of a unit / 4, y units, z batches; a warp of the 128 threads for each row. */
extern "C" __global__ void __launch_bounds__(128, 8) flash_merge(const __grid_constant__ Params p) {
  const int row = blockIdx.x * 4 + (threadIdx.x >> 5), unit = blockIdx.y, batch = blockIdx.z, lane = threadIdx.x & 31;
  if (row >= p.unit_rows) {
    return;
  }
  const SequencePlace sequence = p.places[batch];
  const RowPlace place = row_place(p, unit, row);
  if (place.query >= sequence.query_rows) {
    return;
  }
  const int64_t step = p.units * p.query_place.rows;
  const int64_t first = unit * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + row;
  float largest = -INFINITE;
  for (int part = 0; part < p.parts; part++) {
    const float here = p.part_state[2 * (first + part * step)];
    largest = here > largest || here != here ? here : largest;
  }
  const float base = largest == -INFINITE ? 0.f : largest;
  double denominator = 0;
  for (int part = 0; part < p.parts; part++) {
    const int64_t at = first + part * step;
    const float own = p.part_state[2 * at + 1];
    denominator += own == 0 ? 0. : static_cast<double>(exp2f(p.part_state[2 * at] - base)) * own;
  }
  float* to = p.output + query_element(p.output_strides, sequence, batch, place.head, place.query);
  for (int d = lane; d < p.value_size; d += 32) {
    float sum = 0;
    for (int part = 0; part < p.parts; part++) {
      const int64_t at = first + part * step;
      if (p.part_state[2 * at + 1] != 0) {
        sum = fmaf(exp2f(p.part_state[2 * at] - base), p.part_output[at * p.value_size + d], sum);
      }
    }
    to[d] = denominator == 0 ? 0.f : sum / static_cast<float>(denominator);
  }
  if (lane == 0) {
    store_lse(p, lse_index(p, sequence, batch, place.head, place.query), largest, denominator);
  }
}
