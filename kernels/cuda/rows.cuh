// Attention in plain float32 straight from the call's tensors: for few rows (decode), where reading k and v once is all
// the time there is, and for batches and heads with a NaN or an infinity, which must reach exactly the rows that see
// it.
//
// A warp takes a few keys at a time (rows_keys). Rows of k and v come into shared memory by cp.async, stages ahead: a
// lane copies what it alone will read, so that warps wait for nothing but their own copies, and registers hold no row
// that is on its way.
#pragma once

#include "instances.h"
#include "layout.h"
#include "mask.cuh"
#include "mma.cuh"

namespace flash_attention {
namespace cuda {

/** A lane's E elements of a row lie in chunks of up to 4; neighbouring lanes have neighbouring chunks. */
template <int E>
constexpr int CHUNK_OF = E < 4 ? E : 4;

/** From a lane's first element to number `i`, and which of the row it is. */
template <int E>
__device__ __forceinline__ int element_step(int i) {
  return i / CHUNK_OF<E> * (32 * CHUNK_OF<E>) + i % CHUNK_OF<E>;
}
template <int E>
__device__ __forceinline__ int element_of(int i) {
  return static_cast<int>(threadIdx.x & 31) * CHUNK_OF<E> + element_step<E>(i);
}

/** A lane's E elements of a row of `size`. */
template <int E>
__device__ __forceinline__ void load_elements(const float* row, int size, float (&x)[E]) {
#pragma unroll
  for (int i = 0; i < E; i++) {
    const int d = element_of<E>(i);
    x[i] = d < size ? __ldg(row + d) : 0.f;
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

/** Rows of k or of v of one head and sequence, and this lane's place for them: [STAGES][KEYS][32·E] of its warp. */
template <int E, int KEYS, int STAGES>
struct RowCopies {
  static constexpr int CHUNK = CHUNK_OF<E>, ROW = 32 * E;

  /** Both begin at this lane's first element. */
  const float* data;
  float* memory;
  RowStrides strides;
  int size;
  bool aligned;

  __device__ __forceinline__ RowCopies(const float* tensor, const RowStrides& of, int row_size, int head, float* warp)
      : data(tensor + of.base + head * of.head + element_of<E>(0)), memory(warp + element_of<E>(0)), strides(of),
        size(row_size), aligned(is_aligned(tensor, of, row_size)) {
    // Nothing is copied to where a row has no elements.
    if (size < ROW) {
#pragma unroll 1
      for (int i = 0; i < E; i++) {
#pragma unroll 1
        for (int row = 0; row < STAGES * KEYS && element_of<E>(i) >= size; row++) {
          memory[row * ROW + element_step<E>(i)] = 0;
        }
      }
    }
  }

  /** Keys from `key` on; past `end` the last one again. */
  __device__ __forceinline__ void copy(const Params& p, const SequencePlace& place, int stage, int key, int end) const {
    if (key < end) {
      float* to = memory + stage * KEYS * ROW;
      if (p.page_size == 0 && aligned) {
        const float* from = data + place.key_batch * strides.batch + (place.key_first + key) * strides.row;
#pragma unroll
        for (int n = 0; n < KEYS; n++) {
          copy_row(to + n * ROW, from, true);
          if (n < end - 1 - key) {
            from += strides.row;
          }
        }
      } else {
        copy_anywhere(p, place, to, key, end);
      }
    }
    commit_copies();
  }

  __device__ __forceinline__ void read(int stage, int key, float (&x)[E]) const {
    const float* row = memory + (stage * KEYS + key) * ROW;
#pragma unroll
    for (int i = 0; i < E; i += CHUNK) {
      if constexpr (CHUNK == 4) {
        const float4 part = *reinterpret_cast<const float4*>(row + element_step<E>(i));
        x[i] = part.x, x[i + 1] = part.y, x[i + 2] = part.z, x[i + 3] = part.w;
      } else {
        const float2 part = *reinterpret_cast<const float2*>(row + element_step<E>(i));
        x[i] = part.x, x[i + 1] = part.y;
      }
    }
  }

 private:
  /** Pages are found by a lane for each key. */
  __device__ __forceinline__ void copy_anywhere(const Params& p, const SequencePlace& place, float* to, int key,
                                                int end) const {
    int row = place.key_first + min(key + static_cast<int>(threadIdx.x) % KEYS, end - 1), batch = place.key_batch;
    if (p.page_size > 0) {
      const int page = p.block_table[static_cast<int64_t>(batch) * p.pages_per_sequence + row / p.page_size];
      batch = max(0, min(page, p.key_batches - 1));
      row %= p.page_size;
    }
#pragma unroll 1
    for (int n = 0; n < KEYS; n++) {
      copy_row(to + n * ROW, data + __shfl_sync(0xffffffffu, batch, n) * strides.batch +
                                 __shfl_sync(0xffffffffu, row, n) * strides.row, aligned);
    }
  }

  __device__ __forceinline__ void copy_row(float* to, const float* from, bool in_chunks) const {
#pragma unroll
    for (int i = 0; i < E; i += CHUNK) {
      const int d = element_of<E>(i), step = element_step<E>(i);
      if (in_chunks) {
        if (d < size) {
          CHUNK == 4 ? copy_16_async(shared_address(to + step), from + step)
                     : copy_8_async(shared_address(to + step), from + step);
        }
      } else {
#pragma unroll
        for (int n = 0; n < CHUNK; n++) {
          if (d + n < size) {
            copy_4_async(shared_address(to + step + n), from + step + n);
          }
        }
      }
    }
  }
};

/** Whether a score of −∞ is of a hidden pair: a visible one may be −∞ by its operands, and 0·∞ of it counts. */
__device__ __forceinline__ bool is_hidden(const Params& p, int batch, const RowPlace& own, int key, int begin,
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

/** E: elements of a row to a lane, ROWS of one unit together. */
template <int E, int ROWS, int KEYS = rows_keys(E, ROWS), int STAGES = rows_stages(E, ROWS)>
struct RowsKernel {
  static constexpr int SUMS = ROWS * KEYS, LANES_PER_SUM = 32 / SUMS;
  static constexpr int ROWS_TOGETHER = ROWS, WARP_FLOATS = STAGES * KEYS * 32 * E;

  struct Joined {
    float largest[ROW_WARPS][ROWS], denominator[ROW_WARPS][ROWS], output[ROW_WARPS][ROWS][32 * E];
  };
  struct Shared {
    union {
      float copies[ROW_WARPS][2][WARP_FLOATS];
      Joined joined;
    };
    /** Of a step of a warp: [key][row]. */
    float weights[ROW_WARPS][SUMS];
  };

  static __device__ __forceinline__ void run(const Params& p, Shared& shared, int batch, int unit, int first_row,
                                             int part) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const SequencePlace sequence = place_of(p, batch);
    const Band band(p, sequence);
    const int rows = min(ROWS, p.unit_rows - first_row), key_head = key_head_of(p, unit);

    int begin = 0x7fffffff, end = 0;
    for (int row = 0; row < rows; row++) {
      const int query = row_place(p, unit, first_row + row).query;
      if (band.key_begin(query) < band.key_end(query)) {
        begin = min(begin, band.key_begin(query));
        end = max(end, band.key_end(query));
      }
    }
    // Parts of what is seen, not of the tensor: sequences have lengths of their own.
    constexpr int STEP = ROW_WARPS * KEYS;
    const int seen = max(0, end - begin), share = ((seen + STEP - 1) / STEP + p.parts - 1) / p.parts * STEP;
    const uint32_t skipped = static_cast<uint32_t>(part) * static_cast<uint32_t>(share);
    begin = skipped < static_cast<uint32_t>(seen) ? begin + static_cast<int>(skipped) : end;
    end = end - begin > share ? begin + share : end;
    const RowCopies<E, KEYS, STAGES> k(p.k, p.k_strides, p.head_size, key_head, shared.copies[warp][0]);
    const RowCopies<E, KEYS, STAGES> v(p.v, p.v_strides, p.value_size, key_head, shared.copies[warp][1]);
    const int first = begin + warp * KEYS;
#pragma unroll 1
    for (int stage = 0; stage < STAGES; stage++) {
      k.copy(p, sequence, stage, first + stage * STEP, end);
      v.copy(p, sequence, stage, first + stage * STEP, end);
    }

    float q[ROWS][E], output[ROWS][E] = {};
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      const RowPlace place = row_place(p, unit, first_row + min(row, rows - 1));
      load_elements<E>(p.q + query_element(p.q_strides, sequence, batch, place.head, place.query),
                       place.query < sequence.queries ? p.head_size : 0, q[row]);
    }
    // This lane's sum: of one key of a step and one row.
    const int own_key = lane / LANES_PER_SUM / ROWS, own_row = lane / LANES_PER_SUM % ROWS;
    const RowPlace own = row_place(p, unit, first_row + min(own_row, rows - 1));
    float factor;
    const float sink = sink_score(part == 0 && warp == 0 ? p.sinks : nullptr, own.head, factor);
    float largest = ceilf(sink);
    float denominator = sink == -INFINITE || own_key != 0 ? 0.f : exp2f(sink - largest) * factor;
    const int own_begin = band.key_begin(own.query), own_end = band.key_end(own.query);

    int stage = 0;
    for (int key = first; key < end; key += STEP) {
      wait_copies<2 * STAGES - 1>();
      float sums[SUMS];
#pragma unroll
      for (int n = 0; n < KEYS; n++) {
        float x[E];
        k.read(stage, n, x);
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          float sum = 0;
#pragma unroll
          for (int i = 0; i < E; i++) {
            sum = fmaf(q[row][i], x[i], sum);
          }
          sums[n * ROWS + row] = sum;
        }
      }
      k.copy(p, sequence, stage, key + STAGES * STEP, end);
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
      if (lane % LANES_PER_SUM == 0) {
        shared.weights[warp][lane / LANES_PER_SUM] = weight;
      }
      // Powers of two: seldom anything but 1.
      if (__ballot_sync(0xffffffffu, rescale != 1.f)) {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          const float by = __shfl_sync(0xffffffffu, rescale, row * LANES_PER_SUM);
#pragma unroll
          for (int i = 0; i < E; i++) {
            output[row][i] *= by;
          }
        }
      }
      const uint32_t visible = ~__ballot_sync(0xffffffffu, hidden);
      __syncwarp();
      wait_copies<2 * STAGES - 1>();
      if (visible == 0xffffffffu) {
        add_values<true>(v, stage, shared.weights[warp], visible, output);
      } else {
        add_values<false>(v, stage, shared.weights[warp], visible, output);
      }
      __syncwarp();
      v.copy(p, sequence, stage, key + STAGES * STEP, end);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    wait_copies<0>();
    __syncthreads();
    // A row's denominator lies in the lanes of its keys.
#pragma unroll
    for (int step = 16; step >= ROWS * LANES_PER_SUM; step /= 2) {
      denominator += __shfl_xor_sync(0xffffffffu, denominator, step);
    }
    Joined& joined = shared.joined;
    if (own_key == 0 && lane % LANES_PER_SUM == 0) {
      joined.largest[warp][own_row] = largest;
      joined.denominator[warp][own_row] = denominator;
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
#pragma unroll
      for (int i = 0; i < E; i++) {
        joined.output[warp][row][element_of<E>(i)] = output[row][i];
      }
    }
    __syncthreads();
    for (int row = warp; row < rows; row += ROW_WARPS) {
      store(p, joined, sequence, batch, unit, first_row + row, row, part);
    }
    __syncthreads();
  }

  /** ALL: no pair of the step is hidden. 0 times a value that is no number must not reach a row that sees it not. */
  template <bool ALL>
  static __device__ __forceinline__ void add_values(const RowCopies<E, KEYS, STAGES>& v, int stage,
                                                    const float (&weights)[SUMS], uint32_t visible,
                                                    float (&output)[ROWS][E]) {
#pragma unroll
    for (int n = 0; n < KEYS; n++) {
      float x[E];
      v.read(stage, n, x);
#pragma unroll
      for (int row = 0; row < ROWS; row++) {
        const float weight = weights[n * ROWS + row];
        if (ALL || (visible >> ((n * ROWS + row) * LANES_PER_SUM) & 1)) {
#pragma unroll
          for (int i = 0; i < E; i++) {
            output[row][i] = fmaf(weight, x[i], output[row][i]);
          }
        }
      }
    }
  }

  /** Joins the warps' shares of a row. */
  static __device__ void store(const Params& p, const Joined& shared, const SequencePlace& sequence, int batch,
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

/** Grid: any; items are (part, batch, rows, unit), the unit fastest: heads may be neighbours in memory. */
template <class Kernel>
__device__ __forceinline__ void attend_rows(const Params& p) {
  extern __shared__ __align__(SHARED_ALIGNMENT) unsigned char shared[];
  typename Kernel::Shared& memory = *reinterpret_cast<typename Kernel::Shared*>(shared);
  if (!p.all_odd && !any_odd(p)) {
    return;
  }
  const int blocks = (p.unit_rows + Kernel::ROWS_TOGETHER - 1) / Kernel::ROWS_TOGETHER;
  const int64_t items = static_cast<int64_t>(p.batch) * p.units * blocks * p.parts;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int unit = static_cast<int>(item % p.units), block = static_cast<int>(item / p.units % blocks);
    const int64_t of_all = item / p.units / blocks;
    const int batch = static_cast<int>(of_all % p.batch), part = static_cast<int>(of_all / p.batch);
    if (p.all_odd || p.groups[batch * p.key_heads + key_head_of(p, unit)].odd) {
      Kernel::run(p, memory, batch, unit, block * Kernel::ROWS_TOGETHER, part);
    }
  }
}

}  // namespace cuda
}  // namespace flash_attention
