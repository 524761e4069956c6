// Gradients in plain float32, pair by visible pair, of the batches and key heads that hold a NaN or an infinity: there
// 0 times what a row does not see would be NaN. Slow, and only for those; all kernels end at once where there are none.
#include "rows.cuh"

using namespace flash_attention::cuda;

namespace {

/** Elements of a lane: enough for rows of 256. */
constexpr int E = 8;

struct Row {
  float x[E];
};

__device__ __forceinline__ Row load_row(const float* from, int size) {
  Row row;
  load_elements<E>(from, size, row.x);
  return row;
}

__device__ __forceinline__ float dot(const Row& a, const Row& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < E; i++) {
    sum = fmaf(a.x[i], b.x[i], sum);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
  }
  return sum;
}

/** A query with what belongs to it. */
struct Query {
  Row q, d_output;
  float high, low, delta;
};

__device__ Query load_query(const Params& p, const SequencePlace& sequence, int batch, int head, int query) {
  const int64_t at = head * p.query_place.rows + p.query_place.start(batch, sequence.query_first) + query;
  return {load_row(p.q + query_element(p.q_strides, sequence, batch, head, query), p.head_size),
          load_row(p.d_output + query_element(p.output_strides, sequence, batch, head, query), p.value_size),
          p.lse_high[at], p.lse_low[at], p.delta[at]};
}

/** The weight that meets dO, dS of the score, and ∂score/∂(q·k); not visible: all of them count for nothing. */
struct Pair {
  bool visible;
  float weight, d_score, slope;
};

__device__ Pair pair_of(const Params& p, const Band& band, int batch, int head, int query, int key, const Query& own,
                        const Row& k, const Row& v) {
  Pair pair = {false, 0, 0, 1};
  const int end = band.key_end(query);
  if (own.high == INFINITE ||
      is_hidden(p, batch, {head, query}, key, band.key_begin(query), end)) {
    return pair;
  }
  pair.visible = true;
  const float score =
      finish_score(p, band, batch, head, query, key, dot(own.q, k) * p.softmax_scale, &pair.slope);
  const float kept =
      !p.dropout ? 1.f : keeps(p, batch, head, query, key) ? p.kept_scale : 0.f;
  const float weight = exp2f((score - own.high) - own.low) * power_of_two(-p.weight_exponent);
  pair.d_score = weight * (dot(own.d_output, v) * kept - own.delta);
  pair.weight = p.dropout ? weight * kept : weight;
  return pair;
}

__device__ void add(Row& to, float by, const Row& row) {
#pragma unroll
  for (int i = 0; i < E; i++) {
    to.x[i] = fmaf(by, row.x[i], to.x[i]);
  }
}

__device__ void store_row(float* to, int size, const Row& row) {
#pragma unroll
  for (int i = 0; i < E; i++) {
    const int d = element_of<E>(i);
    if (d < size) {
      to[d] = row.x[i];
    }
  }
}

__device__ void exact_d_query(const Params& p, int batch, int head, int query) {
  const SequencePlace sequence = p.places[batch];
  if (query >= sequence.queries) {
    return;
  }
  const Band band(p, sequence);
  const int key_head = head / (p.query_heads / p.key_heads);
  const Query own = load_query(p, sequence, batch, head, query);
  Row sum = {};
  for (int key = band.key_begin(query); key < band.key_end(query); key++) {
    const Row k = load_row(p.k + key_element(p, p.k_strides, sequence, key_head, key), p.head_size);
    const Row v = load_row(p.v + key_element(p, p.v_strides, sequence, key_head, key), p.value_size);
    const Pair pair = pair_of(p, band, batch, head, query, key, own, k, v);
    if (pair.visible) {
      add(sum, pair.d_score * pair.slope * p.softmax_scale, k);
    }
  }
  store_row(p.d_q + query_element(p.q_strides, sequence, batch, head, query), p.head_size, sum);
}

__device__ void exact_d_key(const Params& p, int batch, int key_head, int key) {
  const SequencePlace sequence = p.places[batch];
  if (key >= sequence.keys) {
    return;
  }
  const Band band(p, sequence);
  const int group = p.query_heads / p.key_heads;
  const int64_t k_at = key_element(p, p.k_strides, sequence, key_head, key);
  const int64_t v_at = key_element(p, p.v_strides, sequence, key_head, key);
  const Row k = load_row(p.k + k_at, p.head_size), v = load_row(p.v + v_at, p.value_size);
  Row d_k = {}, d_v = {};
  for (int head = key_head * group; head < (key_head + 1) * group; head++) {
    for (int query = band.query_begin(key); query < band.query_end(key); query++) {
      const Query own = load_query(p, sequence, batch, head, query);
      const Pair pair = pair_of(p, band, batch, head, query, key, own, k, v);
      if (pair.visible) {
        add(d_v, pair.weight, own.d_output);
        add(d_k, pair.d_score * pair.slope * p.softmax_scale, own.q);
      }
    }
  }
  if (p.d_k) {
    store_row(p.d_k + k_at, p.head_size, d_k);
  }
  if (p.d_v) {
    store_row(p.d_v + v_at, p.value_size, d_v);
  }
}

/** One element of the bias: the pairs that read it, one after the other. */
__device__ void exact_d_bias(const Params& p, int64_t element) {
  const int keys = p.bias_shape[3], queries = p.bias_shape[2], heads = p.bias_shape[1];
  const int own_key = element % keys, own_query = element / keys % queries;
  const int own_head = element / keys / queries % heads, own_batch = static_cast<int>(element / keys / queries / heads);
  double sum = 0;
  for (int batch = p.bias_shape[0] == 1 ? 0 : own_batch; batch < (p.bias_shape[0] == 1 ? p.batch : own_batch + 1);
       batch++) {
    const SequencePlace sequence = p.places[batch];
    const Band band(p, sequence);
    for (int head = heads == 1 ? 0 : own_head; head < (heads == 1 ? p.query_heads : own_head + 1); head++) {
      const int key_head = head / (p.query_heads / p.key_heads);
      for (int query = queries == 1 ? 0 : own_query;
           query < min(sequence.queries, queries == 1 ? p.query_length : own_query + 1); query++) {
        const int begin = max(band.key_begin(query), keys == 1 ? 0 : own_key);
        const int end = min(band.key_end(query), keys == 1 ? p.key_length : own_key + 1);
        if (begin >= end) {
          continue;
        }
        const Query own = load_query(p, sequence, batch, head, query);
        for (int key = begin; key < end; key++) {
          const Row k = load_row(p.k + key_element(p, p.k_strides, sequence, key_head, key), p.head_size);
          const Row v = load_row(p.v + key_element(p, p.v_strides, sequence, key_head, key), p.value_size);
          const Pair pair = pair_of(p, band, batch, head, query, key, own, k, v);
          sum += pair.visible ? pair.d_score : 0.f;
        }
      }
    }
  }
  if ((threadIdx.x & 31) == 0) {
    p.d_bias[own_batch * p.bias_strides.batch + own_head * p.bias_strides.head + own_query * p.bias_strides.query +
             own_key * p.bias_strides.key] = static_cast<float>(sum);
  }
}

/** Rows of all odd groups over the grid's warps. `heads` of `rows` rows to a group. */
template <class Work>
__device__ __forceinline__ void each_odd_row(const Params& p, int heads, int rows, const Work& work) {
  if (!any_odd(p)) {
    return;
  }
  const int warps = blockDim.x / 32, warp = blockIdx.x * warps + (threadIdx.x >> 5);
  for (int group = 0; group < p.batch * p.key_heads; group++) {
    for (int64_t n = warp; p.groups[group].odd && n < static_cast<int64_t>(heads) * rows; n += gridDim.x * warps) {
      work(group / p.key_heads, group % p.key_heads * heads + static_cast<int>(n / rows), static_cast<int>(n % rows));
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(128, 3) flash_exact_d_query(const __grid_constant__ Params p) {
  each_odd_row(p, p.query_heads / p.key_heads, p.query_length,
               [&](int batch, int head, int query) { exact_d_query(p, batch, head, query); });
}

extern "C" __global__ void __launch_bounds__(128, 3) flash_exact_d_key(const __grid_constant__ Params p) {
  each_odd_row(p, 1, p.key_length, [&](int batch, int head, int key) { exact_d_key(p, batch, head, key); });
}

extern "C" __global__ void __launch_bounds__(128, 3) flash_exact_d_bias(const __grid_constant__ Params p) {
  if (!any_odd(p)) {
    return;
  }
  const int64_t elements = static_cast<int64_t>(p.bias_shape[0]) * p.bias_shape[1] * p.bias_shape[2] * p.bias_shape[3];
  for (int64_t element = blockIdx.x * 4 + (threadIdx.x >> 5); element < elements; element += gridDim.x * 4) {
    exact_d_bias(p, element);
  }
}
