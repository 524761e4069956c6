// Large problems, made and checked on the device: normal numbers as canonical operands, and rows and keys taken at
// random whose exact results plain kernels find in float64.
#pragma once

#include "problem.h"

namespace {

constexpr int TYPE_EXPONENT = 12;  // Of float16 operands: numbers below 6 times 2^12 stay below 2^15.
constexpr float LARGEST = 5.9f;

__device__ uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

__device__ float number_of(uint16_t bits, bool is_bfloat16) {
  if (is_bfloat16) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  }
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x / (1 << TYPE_EXPONENT);
}

__global__ void fill_normal(uint16_t* to, int64_t count, bool is_bfloat16, uint32_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += gridDim.x * static_cast<int64_t>(blockDim.x)) {
    const uint32_t bits = mix(static_cast<uint32_t>(i) * 2 + seed * 0x9e3779b9u), more = mix(bits + 0x3c6ef372u);
    const float radius = sqrtf(-2 * logf((bits + 1.f) * 2.3283064e-10f));
    const float x = fminf(fmaxf(radius * cosf(more * 1.4629180e-9f), -LARGEST), LARGEST);
    to[i] = static_cast<uint16_t>(is_bfloat16 ? pack<Bfloat16>(x, 0) : pack<Float16>(x * (1 << TYPE_EXPONENT), 0));
  }
}

/** LSE and D such as normal numbers give: backward kernels are timed and checked without a forward pass. */
__global__ void prepare_rows(cuda::Params call) {
  const int64_t at = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (at < call.query_heads * call.query_place.rows) {
    const int query = static_cast<int>(at % call.query_place.per_batch);
    const float seen = call.window_right < 0 ? call.key_length : query + 1.f;
    call.lse_high[at] = (logf(seen) + 0.5f) * LOG2_E - call.weight_exponent;
    call.delta[at] = (mix(static_cast<uint32_t>(at)) * 2.3283064e-10f - 0.5f) * 0.1f;
  }
}

/** A problem whose sequences are whole and whose heads are DP wide. */
struct Large {
  Setup setup;
  double flops;

  Large(int n, int d, bool causal, bool is_bfloat16) {
    const int heads = 2048 / d;
    setup.shape = {16384 / n, heads, heads, n, n, d, d, -1, causal ? 0 : -1, true, false, false, 1};
    setup.is_bfloat16 = is_bfloat16;
    flops = 4. * setup.shape.batch * heads * n * n * d * (causal ? 0.5 : 1);
    lay_out(setup);
    cuda::Params& call = setup.call;
    std::vector<cuda::SequencePlace> places;
    for (int b = 0; b < call.batch; b++) {
      places.push_back({0, n, 0, n, b, n});
    }
    call.places = setup.own(upload(places));
    const size_t rows = heads * call.query_place.rows, count = rows * d;
    const auto floats = [&](size_t amount) {
      float* memory = setup.own(static_cast<float*>(device_allocate(amount * 4)));
      OK(cudaMemset(memory, 0xff, amount * 4));
      return memory;
    };
    call.output = floats(count);
    call.lse = floats(rows);
    call.lse_tail = floats(rows);
    call.d_q = floats(count);
    call.d_k = floats(count);
    call.d_v = floats(count);
    call.d_q_sums = floats(count);
    call.lse_high = floats(rows);
    call.delta = floats(rows);
    call.weight_exponent = is_bfloat16 ? 0 : cuda::WEIGHT_EXPONENT_F16;
    uint32_t seed = 1;
    for (uint16_t** to : {&call.q16.high, &call.k16.high, &call.v16.high, &call.d_output16.high}) {
      *to = setup.own(static_cast<uint16_t*>(device_allocate(count * 2)));
      fill_normal<<<1024, 256>>>(*to, static_cast<int64_t>(count), is_bfloat16, seed);
      seed++;
    }
    // exponent_for gives TYPE_EXPONENT of these.
    const uint32_t largest = float_bits(6.f), squares = float_bits(6.f * 6 * d);
    std::vector<cuda::GroupState> groups(call.batch * heads, {0, largest, largest, largest, largest, squares, squares,
                                                              squares, 0});
    call.groups = setup.own(upload(groups));
    prepare_rows<<<static_cast<unsigned>((rows + 255) / 256), 256>>>(call);
    OK(cudaGetLastError());
  }
};

constexpr int SAMPLES = 64;

struct SampleErrors {
  /** {Σ difference², Σ exact²} of O, dQ, dK, dV. */
  double sums[4][2];
};

__device__ double sum_of_block(double x) {
  __shared__ double parts[256];
  parts[threadIdx.x] = x;
  __syncthreads();
  for (int step = 128; step > 0; step /= 2) {
    if (threadIdx.x < step) {
      parts[threadIdx.x] += parts[threadIdx.x + step];
    }
    __syncthreads();
  }
  const double sum = parts[0];
  __syncthreads();
  return sum;
}

__device__ double product_of(const uint16_t* a, const uint16_t* b, int dp, bool is_bfloat16) {
  double sum = 0;
  for (int d = 0; d < dp; d++) {
    sum += static_cast<double>(number_of(a[d], is_bfloat16)) * number_of(b[d], is_bfloat16);
  }
  return sum;
}

__device__ void add_difference(double (&to)[2], double got, double exact) {
  atomicAdd(&to[0], (got - exact) * (got - exact));
  atomicAdd(&to[1], exact * exact);
}

/** A query of each block: O and dQ. `weights` and `slopes` are [blocks][N]. */
__global__ void __launch_bounds__(256) sample_queries(cuda::Params call, bool is_bfloat16, bool has_gradient,
                                                      double* weights, double* slopes, SampleErrors* errors) {
  const int n = call.key_length, dp = call.dp;
  const int b = mix(blockIdx.x * 3) % call.batch, h = mix(blockIdx.x * 3 + 1) % call.query_heads;
  const int i = blockIdx.x == 0 ? 0 : blockIdx.x == 1 ? n - 1 : mix(blockIdx.x * 3 + 2) % n;
  const int64_t row = h * call.query_place.rows + b * call.query_place.per_batch + i;
  const int64_t first = h * call.key_place.rows + b * call.key_place.per_batch;
  const int end = call.window_right < 0 ? n : i + 1;
  weights += static_cast<int64_t>(blockIdx.x) * n;
  slopes += static_cast<int64_t>(blockIdx.x) * n;
  double sum = 0;
  for (int j = threadIdx.x; j < end; j += 256) {
    // Scores are a few units at most: no maximum is needed in float64.
    weights[j] = exp(call.softmax_scale * product_of(call.q16.high + row * dp, call.k16.high + (first + j) * dp, dp,
                                                     is_bfloat16));
    sum += weights[j];
  }
  sum = sum_of_block(sum);
  const int d = threadIdx.x;
  const int64_t out = row_index(call.output_strides, b, i, h) + d;
  double exact = 0;
  for (int j = 0; d < dp && j < end; j++) {
    exact += weights[j] / sum * number_of(call.v16.high[(first + j) * dp + d], is_bfloat16);
  }
  if (d < dp) {
    add_difference(errors->sums[0], call.output[out], exact);
  }
  if (!has_gradient) {
    return;
  }
  const double total = exp2(static_cast<double>(call.lse_high[row]) + call.weight_exponent);
  for (int j = threadIdx.x; j < end; j += 256) {
    slopes[j] = weights[j] / total * call.softmax_scale *
        (product_of(call.d_output16.high + row * dp, call.v16.high + (first + j) * dp, dp, is_bfloat16) -
         call.delta[row]);
  }
  __syncthreads();
  exact = 0;
  for (int j = 0; d < dp && j < end; j++) {
    exact += slopes[j] * number_of(call.k16.high[(first + j) * dp + d], is_bfloat16);
  }
  if (d < dp) {
    add_difference(errors->sums[1], call.d_q[out], exact);
  }
}

/** A key of each block: dK and dV, from the LSE and D of all rows. */
__global__ void __launch_bounds__(256) sample_keys(cuda::Params call, bool is_bfloat16, double* weights, double* slopes,
                                                   SampleErrors* errors) {
  const int n = call.query_length, dp = call.dp;
  const int b = mix(blockIdx.x * 3 + 7) % call.batch, h = mix(blockIdx.x * 3 + 8) % call.query_heads;
  const int j = blockIdx.x == 0 ? 0 : blockIdx.x == 1 ? n - 1 : mix(blockIdx.x * 3 + 9) % n;
  const int64_t key = h * call.key_place.rows + b * call.key_place.per_batch + j;
  const int64_t first = h * call.query_place.rows + b * call.query_place.per_batch;
  const int begin = call.window_right < 0 ? 0 : j;
  weights += static_cast<int64_t>(blockIdx.x) * n;
  slopes += static_cast<int64_t>(blockIdx.x) * n;
  for (int i = begin + threadIdx.x; i < n; i += 256) {
    const int64_t row = first + i;
    const double score = product_of(call.q16.high + row * dp, call.k16.high + key * dp, dp, is_bfloat16);
    weights[i] = exp2(score * call.softmax_scale * LOG2_E - (call.lse_high[row] + call.weight_exponent));
    slopes[i] = weights[i] * call.softmax_scale *
        (product_of(call.d_output16.high + row * dp, call.v16.high + key * dp, dp, is_bfloat16) - call.delta[row]);
  }
  __syncthreads();
  const int d = threadIdx.x;
  if (d < dp) {
    double exact_k = 0, exact_v = 0;
    for (int i = begin; i < n; i++) {
      exact_k += slopes[i] * number_of(call.q16.high[(first + i) * dp + d], is_bfloat16);
      exact_v += weights[i] * number_of(call.d_output16.high[(first + i) * dp + d], is_bfloat16);
    }
    const int64_t to = row_index(call.k_strides, b, j, h) + d;
    add_difference(errors->sums[2], call.d_k[to], exact_k);
    add_difference(errors->sums[3], call.d_v[to], exact_v);
  }
}

/** The worst error of what a kernel wrote. */
double sampled_error(const Large& large, Pass pass) {
  const cuda::Params& call = large.setup.call;
  const size_t bytes = static_cast<size_t>(SAMPLES) * call.key_length * sizeof(double);
  double *weights = static_cast<double*>(device_allocate(bytes)), *slopes = static_cast<double*>(device_allocate(bytes));
  SampleErrors errors = {};
  SampleErrors* device_errors = upload(std::vector<SampleErrors>{errors});
  if (owns_keys(pass)) {
    sample_keys<<<SAMPLES, 256>>>(call, large.setup.is_bfloat16, weights, slopes, device_errors);
  }
  if (pass != Pass::keys) {
    sample_queries<<<SAMPLES, 256>>>(call, large.setup.is_bfloat16, pass != Pass::forward, weights, slopes,
                                     device_errors);
  }
  await_device("samples");
  device_read(&errors, device_errors, sizeof errors);
  for (void* memory : {static_cast<void*>(weights), static_cast<void*>(slopes), static_cast<void*>(device_errors)}) {
    device_free(memory);
  }
  const auto error = [&](int i) { return std::sqrt(errors.sums[i][0] / errors.sums[i][1]); };
  const double of_keys = owns_keys(pass) ? std::fmax(error(2), error(3)) : 0;
  return pass == Pass::forward ? error(0) : pass == Pass::keys ? of_keys : std::fmax(error(1), of_keys);
}

}  // namespace
