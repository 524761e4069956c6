// Attention in plain float32 straight from the call's tensors: for few rows (decode), where reading k and v once is all
// the time there is, and for batches and heads with a NaN or an infinity, which must reach exactly the rows that see
// it.
#pragma once

#include "mask.cuh"
#include "mma.cuh"

namespace flash_attention {
namespace cuda {

constexpr int ROW_WARPS = 4;

/** A lane's E elements of a row of `size`. */
template <int E>
__device__ __forceinline__ void load_elements(const float* row, int size, bool aligned, float (&x)[E]) {
  const int d = (threadIdx.x & 31) * E;
  constexpr int STEP = E < 4 ? E : 4;
  if (aligned) {
#pragma unroll
    for (int i = 0; i < E; i += STEP) {
      if (d + i < size) {
        if constexpr (STEP == 4) {
          const float4 part = __ldg(reinterpret_cast<const float4*>(row + d + i));
          x[i] = part.x, x[i + 1] = part.y, x[i + 2] = part.z, x[i + 3] = part.w;
        } else {
          const float2 part = __ldg(reinterpret_cast<const float2*>(row + d + i));
          x[i] = part.x, x[i + 1] = part.y;
        }
      } else {
#pragma unroll
        for (int n = i; n < i + STEP; n++) {
          x[n] = 0;
        }
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < E; i++) {
    x[i] = d + i < size ? __ldg(row + d + i) : 0.f;
  }
}

/** Whether all rows start at a multiple of 16 bytes and are whole vectors. */
__device__ __forceinline__ bool is_aligned(const float* data, const RowStrides& strides, int size) {
  const int64_t all = strides.base | strides.batch | strides.row | strides.head | size;
  return (all & 3) == 0 && (reinterpret_cast<uintptr_t>(data) & 15) == 0;
}

/**
 * Sums each of COUNT values over the warp in COUNT + 3 or so shuffles: a lane hands over half of them at each step. The
 * result in a lane is that of value lane / (32 / COUNT).
 */
template <int COUNT>
__device__ __forceinline__ float sum_each(float (&x)[COUNT]) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 16, count = COUNT; step > 0; step /= 2) {
    if (count > 1) {
      count /= 2;
      const bool upper = lane & step;
#pragma unroll
      for (int n = 0; n < COUNT / 2; n++) {
        if (n < count) {
          const float mine = upper ? x[n + count] : x[n], other = upper ? x[n] : x[n + count];
          x[n] = mine + __shfl_xor_sync(0xffffffffu, other, step);
        }
      }
    } else {
      x[0] += __shfl_xor_sync(0xffffffffu, x[0], step);
    }
  }
  return x[0];
}

/** E: elements of a row to a lane, ROWS of one unit together. */
template <int E, int ROWS>
struct RowsKernel {
  static constexpr int KEYS = ROWS == 8 ? 4 : 8, SUMS = ROWS * KEYS, LANES_PER_SUM = 32 / SUMS;

  /** [warps][rows]: {largest, denominator}, and [warps][rows][32·E] of outputs. */
  struct Shared {
    float largest[ROW_WARPS][ROWS], denominator[ROW_WARPS][ROWS], output[ROW_WARPS][ROWS][32 * E];
  };

  static __device__ void run(const Params& p, Shared& shared, int batch, int unit, int first_row, int part) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const SequencePlace sequence = p.places[batch];
    const Band band(p, sequence);
    const int rows = min(ROWS, p.unit_rows - first_row), key_head = key_head_of(p, unit);
    const bool k_aligned = is_aligned(p.k, p.k_strides, p.head_size);
    const bool v_aligned = is_aligned(p.v, p.v_strides, p.value_size);
    const bool q_aligned = is_aligned(p.q, p.q_strides, p.head_size);

    float q[ROWS][E], output[ROWS][E] = {};
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      const RowPlace place = row_place(p, unit, first_row + min(row, rows - 1));
      if (place.query < sequence.queries) {
        load_elements<E>(p.q + query_element(p.q_strides, sequence, batch, place.head, place.query), p.head_size,
                         q_aligned, q[row]);
      } else {
#pragma unroll
        for (int i = 0; i < E; i++) {
          q[row][i] = 0;
        }
      }
    }
    // This lane's sum: of one key of a step and one row.
    const int own_key = lane / LANES_PER_SUM / ROWS, own_row = lane / LANES_PER_SUM % ROWS;
    const RowPlace own = row_place(p, unit, first_row + min(own_row, rows - 1));
    const float sink = p.sinks && part == 0 && warp == 0 ? p.sinks[own.head] * LOG2_E : -INFINITE;
    float largest = ceilf(sink);
    float denominator = sink == -INFINITE || own_key != 0 ? 0.f : exp2f(sink - largest);
    const int own_begin = band.key_begin(own.query), own_end = band.key_end(own.query);

    int begin = 0x7fffffff, end = 0;
    for (int row = 0; row < rows; row++) {
      const int query = row_place(p, unit, first_row + row).query;
      if (band.key_begin(query) < band.key_end(query)) {
        begin = min(begin, band.key_begin(query));
        end = max(end, band.key_end(query));
      }
    }
    end = min(end, (part + 1) * p.part_keys);
    begin = min(max(begin, part * p.part_keys) / KEYS * KEYS, end);
    for (int key = begin + warp * KEYS; key < end; key += ROW_WARPS * KEYS) {
      float k[KEYS][E], v[KEYS][E];
#pragma unroll
      for (int n = 0; n < KEYS; n++) {
        load_elements<E>(p.k + key_element(p, p.k_strides, sequence, key_head, min(key + n, end - 1)), p.head_size,
                         k_aligned, k[n]);
      }
#pragma unroll
      for (int n = 0; n < KEYS; n++) {
        load_elements<E>(p.v + key_element(p, p.v_strides, sequence, key_head, min(key + n, end - 1)), p.value_size,
                         v_aligned, v[n]);
      }
      float sums[SUMS];
#pragma unroll
      for (int n = 0; n < KEYS; n++) {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          float sum = 0;
#pragma unroll
          for (int i = 0; i < E; i++) {
            sum = fmaf(q[row][i], k[n][i], sum);
          }
          sums[n * ROWS + row] = sum;
        }
      }
      const float product = sum_each<SUMS>(sums);
      const int here = key + own_key;
      float score = -INFINITE, slope;
      if (here >= own_begin && here < own_end && here < end) {
        score = finish_score(p, band, batch, own.head, own.query, here, product * p.softmax_scale, &slope);
      }
      const bool hidden = score == -INFINITE && is_hidden(p, batch, own, here, own_begin, min(own_end, end));
      float most = score;
#pragma unroll
      for (int step = 16; step >= ROWS * LANES_PER_SUM; step /= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
      }
      const float now = fmaxf(largest, ceilf(most));
      const float rescale = now == largest ? 1.f : exp2f(largest - now);
      float weight = hidden ? 0.f : exp2f(score - (now == -INFINITE ? 0.f : now));
      largest = now;
      denominator = denominator * rescale + weight;
      if (p.dropout) {
        weight = keeps(p, batch, own.head, own.query, here) ? weight * p.kept_scale : 0.f;
      }
      const uint32_t visible = ~__ballot_sync(0xffffffffu, hidden);
#pragma unroll
      for (int row = 0; row < ROWS; row++) {
        const float by = __shfl_sync(0xffffffffu, rescale, row * LANES_PER_SUM);
#pragma unroll
        for (int i = 0; i < E; i++) {
          output[row][i] *= by;
        }
      }
#pragma unroll
      for (int n = 0; n < KEYS; n++) {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          const int from = (n * ROWS + row) * LANES_PER_SUM;
          const float of = __shfl_sync(0xffffffffu, weight, from);
          if (visible >> from & 1) {  // 0 times a value that is no number must not reach a row that does not see it
#pragma unroll
            for (int i = 0; i < E; i++) {
              output[row][i] = fmaf(of, v[n][i], output[row][i]);
            }
          }
        }
      }
    }
    // A row's denominator lies in the lanes of its keys.
#pragma unroll
    for (int step = 16; step >= ROWS * LANES_PER_SUM; step /= 2) {
      denominator += __shfl_xor_sync(0xffffffffu, denominator, step);
    }
    if (own_key == 0 && lane % LANES_PER_SUM == 0) {
      shared.largest[warp][own_row] = largest;
      shared.denominator[warp][own_row] = denominator;
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
#pragma unroll
      for (int i = 0; i < E; i++) {
        shared.output[warp][row][lane * E + i] = output[row][i];
      }
    }
    __syncthreads();
    for (int row = warp; row < rows; row += ROW_WARPS) {
      store(p, shared, sequence, batch, unit, first_row + row, row, part);
    }
    __syncthreads();
  }

  /** Whether a score of −∞ is a hidden pair's: one that is seen may be −∞ by its operands, and 0·∞ of it counts. */
  static __device__ __forceinline__ bool is_hidden(const Params& p, int batch, const RowPlace& own, int key, int begin,
                                                   int end) {
    if (key < begin || key >= end) {
      return true;
    }
    if (p.mask && !p.mask[batch * p.mask_strides.batch + own.head * p.mask_strides.head +
                          own.query * p.mask_strides.query + key * p.mask_strides.key]) {
      return true;
    }
    return p.bias && p.bias[batch * p.bias_strides.batch + own.head * p.bias_strides.head +
                            own.query * p.bias_strides.query + key * p.bias_strides.key] == -INFINITE;
  }

  /** Joins the warps' shares of a row. */
  static __device__ void store(const Params& p, const Shared& shared, const SequencePlace& sequence, int batch,
                               int unit, int unit_row, int row, int part) {
    const int lane = threadIdx.x & 31;
    const RowPlace place = row_place(p, unit, unit_row);
    if (place.query >= sequence.query_rows) {
      return;
    }
    float largest = -INFINITE;
#pragma unroll
    for (int warp = 0; warp < ROW_WARPS; warp++) {
      largest = fmaxf(largest, shared.largest[warp][row]);
    }
    const float base = largest == -INFINITE ? 0.f : largest;
    float weights[ROW_WARPS];
    float denominator = 0;
#pragma unroll
    for (int warp = 0; warp < ROW_WARPS; warp++) {
      const float own = shared.denominator[warp][row];
      weights[warp] = own == 0 ? 0.f : exp2f(shared.largest[warp][row] - base);
      denominator += own == 0 ? 0.f : weights[warp] * own;
    }
    float *to, divide_by = 1;
    if (p.parts > 1) {
      const int64_t at = (static_cast<int64_t>(part) * p.units + unit) * p.query_place.rows +
                         p.query_place.start(batch, sequence.query_first) + unit_row;
      to = p.part_output + at * p.value_size;
      if (lane == 0) {
        p.part_state[2 * at] = largest;
        p.part_state[2 * at + 1] = denominator;
      }
    } else {
      to = p.output + query_element(p.output_strides, sequence, batch, place.head, place.query);
      divide_by = denominator;
      if (lane == 0) {
        store_lse(p, lse_index(p, sequence, batch, place.head, place.query), largest, denominator);
      }
    }
    for (int d = lane; d < p.value_size; d += 32) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < ROW_WARPS; warp++) {
        if (shared.denominator[warp][row] != 0) {
          sum = fmaf(weights[warp], shared.output[warp][row][d], sum);
        }
      }
      to[d] = denominator == 0 ? 0.f : sum / divide_by;
    }
  }
};

/** Whether any batch and head has odd operands; the same in all threads. */
__device__ __forceinline__ bool any_odd(const Params& p) {
  bool odd = false;
  for (int group = threadIdx.x; group < p.batch * p.key_heads; group += blockDim.x) {
    odd = odd || p.groups[group].odd != 0;
  }
  return __syncthreads_or(odd);
}

/** Grid: any; items are (batch, unit, rows, part), the part fastest. */
template <int E, int ROWS>
__device__ __forceinline__ void attend_rows(const Params& p) {
  __shared__ typename RowsKernel<E, ROWS>::Shared shared;
  if (!p.all_odd && !any_odd(p)) {
    return;
  }
  const int blocks = (p.unit_rows + ROWS - 1) / ROWS;
  const int64_t items = static_cast<int64_t>(p.batch) * p.units * blocks * p.parts;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int part = static_cast<int>(item % p.parts), block = static_cast<int>(item / p.parts % blocks);
    const int64_t of_batch = item / p.parts / blocks;
    const int unit = static_cast<int>(of_batch % p.units), batch = static_cast<int>(of_batch / p.units);
    if (p.all_odd || p.groups[batch * p.key_heads + key_head_of(p, unit)].odd) {
      RowsKernel<E, ROWS>::run(p, shared, batch, unit, block * ROWS, part);
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
