// One program that says whether the Hopper kernels are right and how fast they are, on a machine with an H100 or H200
// and the CUDA toolkit:
//
//   nvcc -gencode arch=compute_90a,code=sm_90a -std=c++17 -O3 -o try
//     test/cuda/hopper/try.cu kernels/cuda/hopper/tensor_map.cc && timeout 300 ./try
//
// Arguments: "check" or "time" for one of the two. Small problems are compared whole with a float64 reference on the
// same 16-bit operands, large ones at sampled rows. run.sh beside this does all of it.
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "candidates.cuh"
#include "problem.h"

namespace {

#define OK(call)                                                                                        \
  do {                                                                                                  \
    const cudaError_t error = (call);                                                                   \
    if (error != cudaSuccess) {                                                                         \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));             \
      std::exit(2);                                                                                     \
    }                                                                                                   \
  } while (false)

#define FLASH_CANDIDATE_ENTRY(NAME, PLAN) FLASH_ENTRY(NAME, PLAN, true),
const Kernel CANDIDATES[] = {FLASH_CANDIDATES(FLASH_CANDIDATE_ENTRY)};

void* device_allocate(size_t bytes) {
  void* memory;
  OK(cudaMalloc(&memory, std::max<size_t>(bytes, 16)));
  return memory;
}
void device_free(void* memory) { cudaFree(memory); }
void device_write(void* to, const void* from, size_t bytes) { OK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice)); }
void device_read(void* to, const void* from, size_t bytes) { OK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost)); }

EncodeTensorMap device_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
  return reinterpret_cast<EncodeTensorMap>(function);
}

int device_processors() {
  int count;
  OK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

/** LSE in base 2 and D = rowsum(dO∘O) of canonical rows; what the preprocess kernel of the project does. */
__global__ void prepare_rows(cuda::Params call) {
  const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  const int per_head = static_cast<int>(call.query_place.rows);
  if (warp >= call.query_heads * per_head) {
    return;
  }
  const int head = warp / per_head, row = warp % per_head;
  const int batch = row / static_cast<int>(call.query_place.per_batch);
  const int query = row % static_cast<int>(call.query_place.per_batch);
  // Rows that are not there hold NaN: the kernels must not let it out.
  float lse = __int_as_float(0x7fffffff), delta = lse;
  if (query < call.places[batch].queries) {
    const int64_t at = row_index(call.output_strides, batch, query, head);
    delta = 0;
    for (int d = lane; d < call.value_size; d += 32) {
      delta += call.output[at + d] * call.d_output[at + d];
    }
    for (int step = 16; step > 0; step /= 2) {
      delta += __shfl_xor_sync(0xffffffff, delta, step);
    }
    lse = call.lse[batch * call.lse_batch + head * call.lse_head + query] * LOG2_E - call.weight_exponent;
    if (lse == -INFINITE) {
      lse = INFINITE;
      delta = 0;
    }
  }
  if (lane == 0) {
    call.lse_high[warp] = lse;
    call.delta[warp] = delta;
  }
}

void device_launch(const HopperParams& params, const Kernel& kernel) {
  OK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.function), cudaFuncAttributeMaxDynamicSharedMemorySize,
                          kernel.bytes));
  const int blocks = std::min(device_processors(), params.order.heads * params.order.tiles);
  OK(cudaMemsetAsync(params.next_tile, 0, 4));
  if (blocks > 0) {
    kernel.function<<<blocks, kernel.threads, kernel.bytes>>>(params);
  }
  OK(cudaGetLastError());
}

void launch_prepare(const Setup& setup) {
  const int64_t warps = setup.params.call.query_heads * setup.params.call.query_place.rows;
  prepare_rows<<<static_cast<unsigned>((warps * 32 + 255) / 256), 256>>>(setup.params.call);
  OK(cudaGetLastError());
}

/** Rows of a large problem, and keys, against float64; with the device's LSE and D where a key needs those of all. */
void check_sampled(const Setup& setup, bool has_gradient, bool has_output = true) {
  const Shape& shape = setup.shape;
  const cuda::Params& call = setup.params.call;
  const Reference reference{setup};
  const std::vector<float> output = download(call.output, setup.output_count);
  const std::vector<float> lse = download(call.lse, setup.lse_count);
  std::vector<float> d_q, d_k, d_v, delta;
  if (has_gradient) {
    d_q = download(call.d_q, setup.q_count);
    d_k = download(call.d_k, setup.k_count);
    d_v = download(call.d_v, setup.v_count);
    delta = download(call.delta, shape.query_heads * call.query_place.rows);
  }
  std::mt19937 random(7);
  Error output_error, q_error, k_error, v_error;
  std::vector<double> weights;
  for (int sample = 0; sample < 6; sample++) {
    const int b = random() % shape.batch, h = random() % shape.query_heads;
    const int i = sample == 0 ? 0 : sample == 1 ? shape.queries - 1 : random() % shape.queries;
    reference.weigh(b, h, i, weights);
    const std::vector<double> sums = reference.output(b, h, weights);
    const size_t row = (static_cast<size_t>(b) * shape.queries + i) * shape.query_heads + h;
    double of_row = 0;
    for (int d = 0; d < shape.value_size; d++) {
      output_error.add(output[row * shape.value_size + d], sums[d]);
      of_row += has_gradient ? sums[d] * setup.d_output[row * shape.value_size + d] : 0;
    }
    if (!has_gradient) {
      continue;
    }
    std::vector<double> exact(shape.head_size, 0), exact_k(shape.head_size, 0), exact_v(shape.value_size, 0);
    for (int j = 0; j < shape.keys; j++) {
      if (weights[j] != 0) {
        const float* k = reference.at(setup.k, b, j, h, shape.keys, shape.key_heads, shape.head_size);
        const double slope = weights[j] * (reference.product(b, h, i, j) - of_row) * call.softmax_scale;
        for (int d = 0; d < shape.head_size; d++) {
          exact[d] += slope * k[d];
        }
      }
    }
    const int j = std::min(i, shape.keys - 1);
    for (int n = 0; n < shape.queries; n++) {
      if (!reference.is_visible(b, n, j)) {
        continue;
      }
      const double weight = std::exp(reference.score(b, h, n, j) -
                                     lse[(static_cast<size_t>(b) * shape.query_heads + h) * shape.queries + n]);
      const double slope = weight * call.softmax_scale *
          (reference.product(b, h, n, j) - delta[h * call.query_place.rows + b * call.query_place.per_batch + n]);
      const float* q = reference.at(setup.q, b, n, h, shape.queries, shape.query_heads, shape.head_size);
      const float* d_output = reference.at(setup.d_output, b, n, h, shape.queries, shape.query_heads, shape.value_size);
      for (int d = 0; d < shape.head_size; d++) {
        exact_k[d] += slope * q[d];
      }
      for (int d = 0; d < shape.value_size; d++) {
        exact_v[d] += weight * d_output[d];
      }
    }
    const size_t key = (static_cast<size_t>(b) * shape.keys + j) * shape.key_heads + h;
    for (int d = 0; d < shape.head_size; d++) {
      q_error.add(d_q[row * shape.head_size + d], exact[d]);
      k_error.add(d_k[key * shape.head_size + d], exact_k[d]);
    }
    for (int d = 0; d < shape.value_size; d++) {
      v_error.add(d_v[key * shape.value_size + d], exact_v[d]);
    }
  }
  const double allowed = setup.is_bfloat16 ? 8e-3 : 2e-3;
  if (has_output) {
    std::printf(" O %.0e %s", output_error.relative(), verdict(output_error.relative(), allowed));
  }
  if (has_gradient) {
    std::printf(" dQ %.0e %s dK %.0e %s dV %.0e %s", q_error.relative(), verdict(q_error.relative(), 2 * allowed),
                k_error.relative(), verdict(k_error.relative(), 2 * allowed), v_error.relative(),
                verdict(v_error.relative(), 2 * allowed));
  }
}

double median_ms(const std::function<void()>& run) {
  cudaEvent_t before, after;
  OK(cudaEventCreate(&before));
  OK(cudaEventCreate(&after));
  // The clock of an idle card is low: 250 ms of work first.
  const auto start = std::chrono::steady_clock::now();
  do {
    run();
    OK(cudaDeviceSynchronize());
  } while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(250));
  std::vector<float> times;
  for (int i = 0; i < 21; i++) {
    OK(cudaEventRecord(before));
    run();
    OK(cudaEventRecord(after));
    OK(cudaEventSynchronize(after));
    float ms;
    OK(cudaEventElapsedTime(&ms, before, after));
    times.push_back(ms);
  }
  OK(cudaEventDestroy(before));
  OK(cudaEventDestroy(after));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void time_large(int n, int d, bool causal, bool is_bfloat16) {
  const int heads = 2048 / d;
  Shape shape = {16384 / n, heads, heads, n, n, d, d, -1, causal ? 0 : -1, true, false, false, 1};
  const bool has_gradient = d <= 128;
  Setup setup;
  fill(setup, shape, is_bfloat16, 3, true);
  const double flops = 4. * shape.batch * heads * n * n * d * (causal ? 0.5 : 1);
  const auto rate = [&](double times, double ms) { return times * flops / ms * 1e-9; };
  std::printf("%s N%-5d D%-3d %-6s|", is_bfloat16 ? "bf16" : "f16 ", n, d, causal ? "causal" : "");
  const Kernel& kernel = *find(FORWARDS, d, is_bfloat16);
  const HopperParams params = launch_params(setup, kernel, Pass::forward);
  const double forward_ms = median_ms([&] { device_launch(params, kernel); });
  std::printf(" forward %7.3f ms %5.0f |", forward_ms, rate(1, forward_ms));
  if (has_gradient) {
    launch_prepare(setup);
    const Kernel& keys = *find(KEY_GRADIENTS, d, is_bfloat16);
    const Kernel& queries = *find(QUERY_GRADIENTS, d, is_bfloat16);
    const HopperParams key_params = launch_params(setup, keys, Pass::keys);
    const HopperParams query_params = launch_params(setup, queries, Pass::queries);
    const double key_ms = median_ms([&] { device_launch(key_params, keys); });
    const double query_ms = median_ms([&] { device_launch(query_params, queries); });
    const Kernel& adding = *find(ADDING_GRADIENTS, d, is_bfloat16);
    const HopperParams adding_params = launch_params(setup, adding, Pass::keys);
    const size_t sums = heads * setup.params.call.query_place.rows * setup.params.call.dp * sizeof(float);
    const double adding_ms = median_ms([&] {
      OK(cudaMemsetAsync(setup.params.d_q_sum, 0, sums));
      device_launch(adding_params, adding);
    });
    // Of what each does (4, 3 and 5 products, forward being 2), and of a backward pass as it is counted (2.5 forwards).
    std::printf(" dK dV %7.3f ms %5.0f | dQ %7.3f ms %5.0f | backward %5.0f, adding %5.0f |", key_ms, rate(2, key_ms),
                query_ms, rate(1.5, query_ms), rate(2.5, key_ms + query_ms), rate(2.5, adding_ms));
  }
  check_sampled(setup, has_gradient);
  if (is_bfloat16) {
    for (const Kernel& candidate : CANDIDATES) {
      if (candidate.dp != d) {
        continue;
      }
      const HopperParams candidate_params = launch_params(setup, candidate, Pass::forward);
      OK(cudaMemset(setup.params.call.output, 0xff, setup.output_count * 4));
      const double ms = median_ms([&] { device_launch(candidate_params, candidate); });
      std::printf("\n     %-28s %7.3f ms %5.0f |", candidate.name, ms, rate(1, ms));
      check_sampled(setup, false);
    }
  }
  std::puts("");
}

/** The same bits twice, of a problem with more work than blocks. */
void check_repeats() {
  Setup setup;
  fill(setup, {2, 16, 8, 1000, 1000, 128, 128, -1, 0, true, false, false, 1}, true, 9, true);
  const Kernel* kernels[] = {find(FORWARDS, 128, true), find(KEY_GRADIENTS, 128, true),
                             find(QUERY_GRADIENTS, 128, true)};
  std::vector<float> first[4], again[4];
  for (std::vector<float>* to : {first, again}) {
    device_launch(launch_params(setup, *kernels[0], Pass::forward), *kernels[0]);
    launch_prepare(setup);
    device_launch(launch_params(setup, *kernels[1], Pass::keys), *kernels[1]);
    device_launch(launch_params(setup, *kernels[2], Pass::queries), *kernels[2]);
    OK(cudaDeviceSynchronize());
    const cuda::Params& call = setup.params.call;
    to[0] = download(call.output, setup.output_count);
    to[1] = download(call.d_q, setup.q_count);
    to[2] = download(call.d_k, setup.k_count);
    to[3] = download(call.d_v, setup.v_count);
  }
  for (int i = 0; i < 4; i++) {
    const bool same = std::memcmp(first[i].data(), again[i].data(), first[i].size() * 4) == 0;
    failures += !same;
    std::printf("%s%s", i ? " " : "repeats: ", same ? "same" : "DIFFERENT");
  }
  std::puts("");
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  cudaDeviceProp device;
  OK(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
  if (what != "time") {
    check_all();
    check_repeats();
  }
  if (what != "check") {
    for (int d : {64, 128}) {
      for (int n : {1024, 4096, 16384}) {
        for (bool causal : {false, true}) {
          time_large(n, d, causal, true);
        }
      }
      time_large(4096, d, false, false);
    }
    time_large(4096, 256, false, true);
  }
  std::printf("%d failures\n", failures);
  return failures > 0;
}
