// Problems for the Hopper kernels, their canonical operands, a float64 reference and the comparison: for try.cu on a
// GPU and kernels_test.cc on the emulator, which say how memory is had and kernels are started.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../../kernels/cuda/hopper/backward_sm90.cu"
#include "../../../kernels/cuda/hopper/exponential.h"
#include "../../../kernels/cuda/hopper/forward_sm90.cu"

namespace cuda = flash_attention::cuda;
using namespace flash_attention::hopper;

namespace {

struct Kernel {
  const char* name;
  void (*function)(HopperParams);
  int dp, rows, tile, threads, bytes;
  bool is_bfloat16;
};

#define FLASH_ENTRY(NAME, PLAN, IS_BF16) \
  {#NAME, NAME, PLAN::DEPTH, PLAN::ROWS, PLAN::TILE, PLAN::THREADS, PLAN::BYTES, IS_BF16}

const Kernel FORWARDS[] = {
    FLASH_ENTRY(hopper_forward_bf16_64, Forward64, true),    FLASH_ENTRY(hopper_forward_bf16_128, Forward128, true),
    FLASH_ENTRY(hopper_forward_bf16_256, Forward256, true),  FLASH_ENTRY(hopper_forward_f16_64, Forward64, false),
    FLASH_ENTRY(hopper_forward_f16_128, Forward128, false),  FLASH_ENTRY(hopper_forward_f16_256, Forward256, false),
};
const Kernel KEY_GRADIENTS[] = {
    FLASH_ENTRY(hopper_key_gradient_bf16_64, KeyGradient64, true),
    FLASH_ENTRY(hopper_key_gradient_bf16_128, KeyGradient128, true),
    FLASH_ENTRY(hopper_key_gradient_f16_64, KeyGradient64, false),
    FLASH_ENTRY(hopper_key_gradient_f16_128, KeyGradient128, false),
};
const Kernel ADDING_GRADIENTS[] = {
    FLASH_ENTRY(hopper_adding_gradient_bf16_64, AddingGradient64, true),
    FLASH_ENTRY(hopper_adding_gradient_bf16_128, AddingGradient128, true),
    FLASH_ENTRY(hopper_adding_gradient_f16_64, AddingGradient64, false),
    FLASH_ENTRY(hopper_adding_gradient_f16_128, AddingGradient128, false),
};
const Kernel QUERY_GRADIENTS[] = {
    FLASH_ENTRY(hopper_query_gradient_bf16_64, QueryGradient64, true),
    FLASH_ENTRY(hopper_query_gradient_bf16_128, QueryGradient128, true),
    FLASH_ENTRY(hopper_query_gradient_f16_64, QueryGradient64, false),
    FLASH_ENTRY(hopper_query_gradient_f16_128, QueryGradient128, false),
};

template <size_t N>
const Kernel* find(const Kernel (&kernels)[N], int dp, bool is_bfloat16) {
  for (const Kernel& kernel : kernels) {
    if (kernel.dp == dp && kernel.is_bfloat16 == is_bfloat16) {
      return &kernel;
    }
  }
  return nullptr;
}

// ---- 16-bit numbers on the host -------------------------------------------------------------------------------------

uint16_t to_bfloat16(float x) {
  const uint32_t bits = float_bits(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float from_bfloat16(uint16_t x) { return float_of(static_cast<uint32_t>(x) << 16); }

uint16_t to_float16(float x) {
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
float from_float16(uint16_t x) {
  _Float16 half;
  std::memcpy(&half, &x, 2);
  return static_cast<float>(half);
}

// ---- A problem, its tensors on both sides ---------------------------------------------------------------------------

struct Shape {
  int batch, query_heads, key_heads, queries, keys, head_size, value_size;
  int window_left, window_right;
  bool bottom_right, has_sinks, has_lengths;
  float magnitude;
};

int dp_of(const Shape& shape) {
  const int size = std::max(shape.head_size, shape.value_size);
  return size <= 64 ? 64 : size <= 128 ? 128 : 256;
}

// What the including file defines.
void* device_allocate(size_t bytes);
void device_free(void* memory);
void device_write(void* to, const void* from, size_t bytes);
void device_read(void* to, const void* from, size_t bytes);
void device_launch(const HopperParams& params, const Kernel& kernel);
int device_processors();
EncodeTensorMap device_encoder();

template <typename T>
T* upload(const std::vector<T>& from) {
  T* to = static_cast<T*>(device_allocate(from.size() * sizeof(T)));
  device_write(to, from.data(), from.size() * sizeof(T));
  return to;
}

float* poisoned(size_t count) {
  float* to = static_cast<float*>(device_allocate(count * 4));
  const std::vector<float> nothing(count, NAN);
  device_write(to, nothing.data(), count * 4);
  return to;
}

std::vector<float> download(const float* from, size_t count) {
  std::vector<float> to(count);
  device_read(to.data(), from, count * 4);
  return to;
}

struct Setup {
  Shape shape;
  bool is_bfloat16;
  HopperParams params = {};
  // [B][N][H][D], as they are after rounding; and places.
  std::vector<float> q, k, v, d_output, sinks;
  std::vector<cuda::SequencePlace> places;
  std::vector<void*> owned;
  uint32_t* next_tile;
  size_t output_count, q_count, k_count, v_count, lse_count;

  ~Setup() {
    for (void* memory : owned) {
      device_free(memory);
    }
  }
  template <typename T>
  T* own(T* memory) {
    owned.push_back(memory);
    return memory;
  }
};

/** Rows of a tensor [B][N][H][size] as canonical rows; brings the tensor to what they hold. */
uint16_t* canonical(Setup& setup, std::vector<float>& tensor, int heads, int length, int size,
                    const cuda::CanonicalRows& rows, std::vector<int>& exponents, int group) {
  const int dp = dp_of(setup.shape), batches = setup.shape.batch;
  std::vector<uint16_t> to(static_cast<size_t>(heads) * rows.rows * dp, 0);
  for (int b = 0; b < batches; b++) {
    for (int h = 0; h < heads; h++) {
      const int exponent = exponents[b * setup.shape.key_heads + h / group];
      for (int n = 0; n < length; n++) {
        float* from = &tensor[((static_cast<size_t>(b) * length + n) * heads + h) * size];
        uint16_t* row = &to[(h * rows.rows + b * rows.per_batch + n) * dp];
        for (int d = 0; d < size; d++) {
          if (setup.is_bfloat16) {
            row[d] = to_bfloat16(from[d]);
            from[d] = from_bfloat16(row[d]);
          } else {
            row[d] = to_float16(std::ldexp(from[d], exponent));
            from[d] = std::ldexp(from_float16(row[d]), -exponent);
          }
        }
      }
    }
  }
  return setup.own(upload(to));
}

void map_operand(TensorMap* map, const Setup& setup, const uint16_t* data, int heads, const cuda::CanonicalRows& rows,
                 int box_rows) {
  const int result = encode_tensor_map(
      device_encoder(), map, const_cast<uint16_t*>(data),
      tensor_map_fields(setup.is_bfloat16, heads, rows.rows, dp_of(setup.shape), static_cast<uint32_t>(box_rows)));
  if (result != 0) {
    std::printf("cuTensorMapEncodeTiled: %d\n", result);
    std::exit(2);
  }
}

void fill(Setup& setup, const Shape& shape, bool is_bfloat16, uint32_t seed, bool has_gradient) {
  setup.shape = shape;
  setup.next_tile = setup.own(static_cast<uint32_t*>(device_allocate(4)));
  setup.is_bfloat16 = is_bfloat16;
  cuda::Params& call = setup.params.call;
  const auto padded = [](int n) { return (n + 127) / 128 * 128; };
  call.batch = shape.batch;
  call.query_length = call.query_rows = shape.queries;
  call.key_length = call.key_rows = shape.keys;
  call.query_heads = shape.query_heads;
  call.key_heads = shape.key_heads;
  call.head_size = shape.head_size;
  call.value_size = shape.value_size;
  call.bottom_right = shape.bottom_right;
  call.window_left = shape.window_left;
  call.window_right = shape.window_right;
  call.softmax_scale = 1 / std::sqrt(static_cast<float>(shape.head_size));
  call.dp = dp_of(shape);
  const auto strides = [&](int length, int heads, int size) {
    return cuda::RowStrides{0, static_cast<int64_t>(length) * heads * size, static_cast<int64_t>(heads) * size, size};
  };
  call.q_strides = strides(shape.queries, shape.query_heads, shape.head_size);
  call.k_strides = strides(shape.keys, shape.key_heads, shape.head_size);
  call.v_strides = strides(shape.keys, shape.key_heads, shape.value_size);
  call.output_strides = strides(shape.queries, shape.query_heads, shape.value_size);
  call.lse_batch = static_cast<int64_t>(shape.query_heads) * shape.queries;
  call.lse_head = shape.queries;
  call.query_place = {static_cast<int64_t>(shape.batch) * padded(shape.queries), padded(shape.queries)};
  call.key_place = {static_cast<int64_t>(shape.batch) * padded(shape.keys), padded(shape.keys)};
  setup.q_count = static_cast<size_t>(shape.batch) * shape.queries * shape.query_heads * shape.head_size;
  setup.output_count = static_cast<size_t>(shape.batch) * shape.queries * shape.query_heads * shape.value_size;
  setup.k_count = static_cast<size_t>(shape.batch) * shape.keys * shape.key_heads * shape.head_size;
  setup.v_count = static_cast<size_t>(shape.batch) * shape.keys * shape.key_heads * shape.value_size;
  setup.lse_count = static_cast<size_t>(shape.batch) * shape.query_heads * shape.queries;
  std::mt19937 random(seed);
  // A pool of normal numbers, taken at random places: the large problems have 10^8 of them.
  std::vector<float> pool(1 << 16);
  std::normal_distribution<float> normal(0, shape.magnitude);
  for (float& x : pool) {
    x = normal(random);
  }
  uint64_t state = seed * 2654435761u + 1;
  const auto randomise = [&](std::vector<float>& tensor, size_t count) {
    tensor.resize(count);
    for (float& x : tensor) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      x = pool[state >> 48];
    }
  };
  randomise(setup.q, setup.q_count);
  randomise(setup.k, setup.k_count);
  randomise(setup.v, setup.v_count);
  if (has_gradient) {
    randomise(setup.d_output, setup.output_count);
  }
  for (int b = 0; b < shape.batch; b++) {
    cuda::SequencePlace place = {0, shape.queries, 0, shape.keys, b, shape.queries};
    if (shape.has_lengths) {
      place.queries = static_cast<int>(random() % (shape.queries + 1));
      place.keys = static_cast<int>(random() % (shape.keys + 1));
    }
    setup.places.push_back(place);
  }
  if (shape.has_sinks) {
    for (int h = 0; h < shape.query_heads; h++) {
      setup.sinks.push_back(pool[h] * 2);
    }
    call.sinks = setup.own(upload(setup.sinks));
  }
  call.places = setup.own(upload(setup.places));
  // Magnitudes of a batch and key head; powers of two as the conversion chooses them.
  const int group = shape.query_heads / shape.key_heads;
  std::vector<cuda::GroupState> groups(shape.batch * shape.key_heads, cuda::GroupState{});
  const auto measure = [&](const std::vector<float>& tensor, int heads, int length, int size, int of,
                           uint32_t cuda::GroupState::* largest, uint32_t cuda::GroupState::* squares) {
    for (size_t row = 0; row < tensor.size() / size; row++) {
      const int h = static_cast<int>(row % heads), b = static_cast<int>(row / heads / length);
      cuda::GroupState& to = groups[b * shape.key_heads + h / of];
      float sum = 0;
      for (int d = 0; d < size; d++) {
        const float x = tensor[row * size + d];
        to.*largest = std::max(to.*largest, float_bits(std::fabs(x)));
        sum += x * x;
      }
      if (squares) {
        to.*squares = std::max(to.*squares, float_bits(sum));
      }
    }
  };
  if (!is_bfloat16) {
    measure(setup.q, shape.query_heads, shape.queries, shape.head_size, group, &cuda::GroupState::q, nullptr);
    measure(setup.k, shape.key_heads, shape.keys, shape.head_size, 1, &cuda::GroupState::k, nullptr);
    measure(setup.v, shape.key_heads, shape.keys, shape.value_size, 1, &cuda::GroupState::v,
            &cuda::GroupState::v_squares);
    measure(setup.d_output, shape.query_heads, shape.queries, shape.value_size, group, &cuda::GroupState::d_output,
            &cuda::GroupState::d_output_squares);
  }
  const auto exponents = [&](uint32_t cuda::GroupState::* of) {
    std::vector<int> list;
    for (const cuda::GroupState& state : groups) {
      list.push_back(is_bfloat16 ? 0 : cuda::exponent_for(state.*of));
    }
    return list;
  };
  std::vector<int> powers = exponents(&cuda::GroupState::q);
  call.q16.high = canonical(setup, setup.q, shape.query_heads, shape.queries, shape.head_size, call.query_place,
                            powers, group);
  powers = exponents(&cuda::GroupState::k);
  call.k16.high = canonical(setup, setup.k, shape.key_heads, shape.keys, shape.head_size, call.key_place, powers, 1);
  powers = exponents(&cuda::GroupState::v);
  call.v16.high = canonical(setup, setup.v, shape.key_heads, shape.keys, shape.value_size, call.key_place, powers, 1);
  call.output = setup.own(poisoned(setup.output_count));
  call.lse = setup.own(poisoned(setup.lse_count));
  call.lse_tail = setup.own(poisoned(setup.lse_count));
  if (has_gradient) {
    call.d_output = setup.own(upload(setup.d_output));
    powers = exponents(&cuda::GroupState::d_output);
    call.d_output16.high = canonical(setup, setup.d_output, shape.query_heads, shape.queries, shape.value_size,
                                     call.query_place, powers, group);
    for (cuda::GroupState& state : groups) {
      // |D| ≤ |dO|·|V|, as O is a mean of values.
      state.delta = float_bits(std::sqrt(float_of(state.v_squares) * float_of(state.d_output_squares)));
    }
    call.d_q = setup.own(poisoned(setup.q_count));
    call.d_k = setup.own(poisoned(setup.k_count));
    call.d_v = setup.own(poisoned(setup.v_count));
    const size_t rows = shape.query_heads * call.query_place.rows;
    call.lse_high = setup.own(poisoned(rows));
    call.delta = setup.own(poisoned(rows));
    call.weight_exponent = is_bfloat16 ? 0 : cuda::WEIGHT_EXPONENT_F16;
    setup.params.d_q_sum = setup.own(upload(std::vector<float>(rows * call.dp, 0.f)));
  }
  call.groups = setup.own(upload(groups));
}

enum class Pass { forward, keys, queries };

HopperParams launch_params(const Setup& setup, const Kernel& kernel, Pass pass) {
  HopperParams params = setup.params;
  const cuda::Params& call = params.call;
  const int q_rows = pass == Pass::keys ? kernel.tile : kernel.rows;
  const int k_rows = pass == Pass::keys ? kernel.rows : kernel.tile;
  map_operand(&params.q, setup, call.q16.high, call.query_heads, call.query_place, q_rows);
  map_operand(&params.k, setup, call.k16.high, call.key_heads, call.key_place, k_rows);
  map_operand(&params.v, setup, call.v16.high, call.key_heads, call.key_place, k_rows);
  if (pass != Pass::forward) {
    map_operand(&params.d_output, setup, call.d_output16.high, call.query_heads, call.query_place, q_rows);
  }
  const int group = call.query_heads / call.key_heads;
  const bool by_keys = pass == Pass::keys;
  const int length = by_keys ? call.key_length : call.query_length;
  const int other = by_keys ? call.query_length : call.key_length;
  params.order.heads = call.batch * (by_keys ? call.key_heads : call.query_heads);
  params.order.tiles = (length + kernel.rows - 1) / kernel.rows;
  params.order.section = section_heads(params.order.heads, by_keys ? 1 : group,
                                       static_cast<int64_t>(other) * call.dp * 4 * (by_keys ? group : 1));
  params.order.descending = !by_keys;
  params.next_tile = setup.next_tile;
  return params;
}

// ---- The reference: float64, a row at a time ------------------------------------------------------------------------

struct Reference {
  const Setup& setup;
  const float* at(const std::vector<float>& tensor, int b, int n, int h, int length, int heads, int size) const {
    return &tensor[((static_cast<size_t>(b) * length + n) * heads + h) * size];
  }
  bool is_visible(int b, int i, int j) const {
    const Shape& s = setup.shape;
    const cuda::SequencePlace& place = setup.places[b];
    const int offset = s.bottom_right ? place.keys - place.queries : 0;
    return i < place.queries && j < place.keys && (s.window_left < 0 || j >= i + offset - s.window_left) &&
        (s.window_right < 0 || j <= i + offset + s.window_right);
  }
  double score(int b, int h, int i, int j) const {
    const Shape& s = setup.shape;
    const float* q = at(setup.q, b, i, h, s.queries, s.query_heads, s.head_size);
    const float* k = at(setup.k, b, j, h / (s.query_heads / s.key_heads), s.keys, s.key_heads, s.head_size);
    double sum = 0;
    for (int d = 0; d < s.head_size; d++) {
      sum += static_cast<double>(q[d]) * k[d];
    }
    return sum * setup.params.call.softmax_scale;
  }
  double product(int b, int h, int i, int j) const {
    const Shape& s = setup.shape;
    const float* d_output = at(setup.d_output, b, i, h, s.queries, s.query_heads, s.value_size);
    const float* v = at(setup.v, b, j, h / (s.query_heads / s.key_heads), s.keys, s.key_heads, s.value_size);
    double sum = 0;
    for (int d = 0; d < s.value_size; d++) {
      sum += static_cast<double>(d_output[d]) * v[d];
    }
    return sum;
  }
  /** Weights of a row (0 where hidden) and its LSE. */
  double weigh(int b, int h, int i, std::vector<double>& weights) const {
    const double none = -HUGE_VAL;
    double largest = setup.sinks.empty() ? none : setup.sinks[h], sum = 0;
    weights.assign(setup.shape.keys, none);
    for (int j = 0; j < setup.shape.keys; j++) {
      if (is_visible(b, i, j)) {
        weights[j] = score(b, h, i, j);
        largest = std::max(largest, weights[j]);
      }
    }
    if (largest == none) {
      weights.assign(setup.shape.keys, 0);
      return none;
    }
    for (double& w : weights) {
      w = std::exp(w - largest);
      sum += w;
    }
    if (!setup.sinks.empty()) {
      sum += std::exp(setup.sinks[h] - largest);
    }
    for (double& w : weights) {
      w /= sum;
    }
    return largest + std::log(sum);
  }
  std::vector<double> output(int b, int h, const std::vector<double>& weights) const {
    const Shape& s = setup.shape;
    std::vector<double> sums(s.value_size, 0);
    for (int j = 0; j < s.keys; j++) {
      if (weights[j] != 0) {
        const float* v = at(setup.v, b, j, h / (s.query_heads / s.key_heads), s.keys, s.key_heads, s.value_size);
        for (int d = 0; d < s.value_size; d++) {
          sums[d] += weights[j] * v[d];
        }
      }
    }
    return sums;
  }
};

/** ‖out − ref‖ / ‖ref‖ over what it is given; NaN where anything was left unwritten. */
struct Error {
  double difference = 0, size = 0;
  void add(double out, double ref) {
    difference += (out - ref) * (out - ref);
    size += ref * ref;
  }
  double relative() const { return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size); }
};

/** LSE in base 2 and D = rowsum(dO∘O) of canonical rows, which the project has a kernel for. Other rows keep NaN. */
void prepare(const Setup& setup) {
  const cuda::Params& call = setup.params.call;
  const Shape& shape = setup.shape;
  const std::vector<float> output = download(call.output, setup.output_count);
  const std::vector<float> lse = download(call.lse, setup.lse_count);
  const size_t rows = shape.query_heads * call.query_place.rows;
  std::vector<float> high = download(call.lse_high, rows), delta = download(call.delta, rows);
  for (int b = 0; b < shape.batch; b++) {
    for (int h = 0; h < shape.query_heads; h++) {
      for (int i = 0; i < setup.places[b].queries; i++) {
        const size_t row = (static_cast<size_t>(b) * shape.queries + i) * shape.query_heads + h;
        const size_t to = h * call.query_place.rows + b * call.query_place.per_batch + i;
        const float of_row = lse[(static_cast<size_t>(b) * shape.query_heads + h) * shape.queries + i];
        double sum = 0;
        for (int d = 0; d < shape.value_size; d++) {
          sum += static_cast<double>(output[row * shape.value_size + d]) * setup.d_output[row * shape.value_size + d];
        }
        high[to] = std::isinf(of_row) ? INFINITE : of_row * LOG2_E - call.weight_exponent;
        delta[to] = std::isinf(of_row) ? 0 : static_cast<float>(sum);
      }
    }
  }
  device_write(call.lse_high, high.data(), rows * 4);
  device_write(call.delta, delta.data(), rows * 4);
}

int failures = 0;
const char* verdict(double error, double allowed) {
  const bool holds = error <= allowed;
  failures += !holds;
  return holds ? "ok" : "FAILED";
}

void check_small(const Shape& shape, bool is_bfloat16, uint32_t seed) {
  const bool has_gradient = dp_of(shape) <= 128;
  Setup setup;
  fill(setup, shape, is_bfloat16, seed, true);
  const Kernel& kernel = *find(FORWARDS, dp_of(shape), is_bfloat16);
  device_launch(launch_params(setup, kernel, Pass::forward), kernel);
  const cuda::Params& call = setup.params.call;
  if (has_gradient) {
    prepare(setup);
    const Kernel& keys = *find(KEY_GRADIENTS, dp_of(shape), is_bfloat16);
    const Kernel& queries = *find(QUERY_GRADIENTS, dp_of(shape), is_bfloat16);
    device_launch(launch_params(setup, keys, Pass::keys), keys);
    device_launch(launch_params(setup, queries, Pass::queries), queries);
    }
  const std::vector<float> output = download(call.output, setup.output_count);
  const std::vector<float> lse = download(call.lse, setup.lse_count);
  const std::vector<float> tail = download(call.lse_tail, setup.lse_count);
  const Reference reference{setup};
  Error output_error, q_error, k_error, v_error;
  double lse_error = 0;
  std::vector<double> d_q(setup.q_count, 0), d_k(setup.k_count, 0), d_v(setup.v_count, 0), weights;
  const int group = shape.query_heads / shape.key_heads;
  for (int b = 0; b < shape.batch; b++) {
    for (int h = 0; h < shape.query_heads; h++) {
      for (int i = 0; i < shape.queries; i++) {
        const double exact = reference.weigh(b, h, i, weights);
        const std::vector<double> sums = reference.output(b, h, weights);
        const size_t row = (static_cast<size_t>(b) * shape.queries + i) * shape.query_heads + h;
        for (int d = 0; d < shape.value_size; d++) {
          output_error.add(output[row * shape.value_size + d], sums[d]);
        }
        const size_t at = (static_cast<size_t>(b) * shape.query_heads + h) * shape.queries + i;
        const double got = static_cast<double>(lse[at]) + tail[at];
        lse_error = std::isinf(exact) ? (got == exact ? lse_error : NAN)
                                      : !(std::fabs(got - exact) <= lse_error) ? std::fabs(got - exact) : lse_error;
        if (!has_gradient) {
          continue;
        }
        double delta = 0;
        for (int d = 0; d < shape.value_size; d++) {
          delta += sums[d] * setup.d_output[row * shape.value_size + d];
        }
        for (int j = 0; j < shape.keys; j++) {
          if (weights[j] == 0) {
            continue;
          }
          const size_t key = (static_cast<size_t>(b) * shape.keys + j) * shape.key_heads + h / group;
          const double slope = weights[j] * (reference.product(b, h, i, j) - delta) * call.softmax_scale;
          for (int d = 0; d < shape.head_size; d++) {
            d_q[row * shape.head_size + d] += slope * setup.k[key * shape.head_size + d];
            d_k[key * shape.head_size + d] += slope * setup.q[row * shape.head_size + d];
          }
          for (int d = 0; d < shape.value_size; d++) {
            d_v[key * shape.value_size + d] += weights[j] * setup.d_output[row * shape.value_size + d];
          }
        }
      }
    }
  }
  const double allowed = is_bfloat16 ? 6e-3 : 8e-4;
  std::printf("%s B%d Hq%d Hkv%d Nq%d Nk%d D%d Dv%d w(%d,%d)%s%s%s x%g | O %.1e %s  LSE %.1e %s",
              is_bfloat16 ? "bf16" : "f16 ",
              shape.batch, shape.query_heads, shape.key_heads, shape.queries, shape.keys, shape.head_size,
              shape.value_size, shape.window_left, shape.window_right, shape.bottom_right ? " br" : "",
              shape.has_sinks ? " sinks" : "", shape.has_lengths ? " lengths" : "", shape.magnitude,
              output_error.relative(), verdict(output_error.relative(), allowed), lse_error,
              verdict(lse_error, 2e-5 * (1 + shape.magnitude * shape.magnitude)));
  if (has_gradient) {
    const std::vector<float> q = download(call.d_q, setup.q_count), k = download(call.d_k, setup.k_count),
                             v = download(call.d_v, setup.v_count);
    for (size_t i = 0; i < q.size(); i++) {
      q_error.add(q[i], d_q[i]);
    }
    // Rows of keys past a sequence are the caller's to clear.
    for (size_t i = 0; i < k.size(); i++) {
      const size_t row = i / shape.head_size / shape.key_heads;
      if (static_cast<int>(row % shape.keys) < setup.places[row / shape.keys].keys) {
        k_error.add(k[i], d_k[i]);
      }
    }
    for (size_t i = 0; i < v.size(); i++) {
      const size_t row = i / shape.value_size / shape.key_heads;
      if (static_cast<int>(row % shape.keys) < setup.places[row / shape.keys].keys) {
        v_error.add(v[i], d_v[i]);
      }
    }
    // The kernel that adds dQ: dQ from its sums, dK and dV as close to the other's as their rounding.
    const std::vector<float> nothing(std::max(setup.k_count, setup.v_count), NAN);
    device_write(call.d_k, nothing.data(), setup.k_count * 4);
    device_write(call.d_v, nothing.data(), setup.v_count * 4);
    const Kernel& adding = *find(ADDING_GRADIENTS, dp_of(shape), is_bfloat16);
    device_launch(launch_params(setup, adding, Pass::keys), adding);
    const std::vector<float> sums = download(setup.params.d_q_sum, shape.query_heads * call.query_place.rows * call.dp);
    const std::vector<float> k_again = download(call.d_k, setup.k_count), v_again = download(call.d_v, setup.v_count);
    Error adding_error;
    for (size_t i = 0; i < d_q.size(); i++) {
      const size_t row = i / shape.head_size, h = row % shape.query_heads, n = row / shape.query_heads;
      const size_t at = h * call.query_place.rows + n / shape.queries * call.query_place.per_batch + n % shape.queries;
      adding_error.add(sums[at * call.dp + i % shape.head_size], d_q[i]);
    }
    Error again;
    for (size_t i = 0; i < k.size(); i++) {
      again.add(std::isnan(k[i]) ? 0 : k_again[i], std::isnan(k[i]) ? 0 : k[i]);
    }
    for (size_t i = 0; i < v.size(); i++) {
      again.add(std::isnan(v[i]) ? 0 : v_again[i], std::isnan(v[i]) ? 0 : v[i]);
    }
    std::printf("  added dQ %.1e %s dK dV %.0e %s", adding_error.relative(),
                verdict(adding_error.relative(), 2 * allowed), again.relative(), verdict(again.relative(), 1e-5));
    std::printf("  dQ %.1e %s  dK %.1e %s  dV %.1e %s", q_error.relative(), verdict(q_error.relative(), 2 * allowed),
                k_error.relative(), verdict(k_error.relative(), 2 * allowed), v_error.relative(),
                verdict(v_error.relative(), allowed));
  }
  std::puts("");
}


/** Of both types. */
void check_all() {
  const Shape shapes[] = {
      // B Hq Hkv Nq Nk D Dv window br sinks lengths magnitude
      {1, 1, 1, 64, 64, 64, 64, -1, -1, true, false, false, 1},
      {1, 1, 1, 128, 128, 128, 128, -1, -1, true, false, false, 1},
      {1, 1, 1, 128, 160, 256, 256, -1, -1, true, false, false, 1},
      {2, 3, 3, 300, 517, 64, 64, -1, -1, true, false, false, 1},
      {2, 2, 2, 257, 511, 128, 128, -1, 0, true, false, false, 1},
      {1, 2, 2, 200, 300, 256, 256, -1, 0, false, false, false, 1},
      {2, 6, 2, 333, 333, 64, 64, -1, 0, true, true, false, 2},
      {2, 4, 1, 190, 450, 128, 128, 70, 33, true, true, true, 1},
      {3, 4, 2, 401, 290, 80, 96, -1, 0, true, false, true, 1},
      {2, 2, 1, 150, 700, 40, 33, 100, -1, false, false, false, 1},
      {1, 2, 2, 130, 900, 160, 200, 128, 0, true, true, false, 1},
      {2, 2, 2, 700, 100, 64, 64, -1, 0, true, true, false, 1},
      {1, 2, 2, 256, 1024, 128, 128, -1, -1, true, false, false, 8},
      {1, 2, 1, 150, 260, 64, 40, 70, 33, true, true, true, 3},
      {2, 2, 1, 300, 90, 80, 96, -1, 0, true, true, true, 1},
      {1, 1, 1, 70, 400, 128, 128, 100, -1, false, false, false, 8},
      {1, 1, 1, 300, 300, 64, 64, 0, 0, true, false, false, 1},
      {1, 1, 1, 1, 1, 64, 64, -1, -1, true, false, false, 1},
  };
  for (bool is_bfloat16 : {true, false}) {
    uint32_t seed = 1;
    for (const Shape& shape : shapes) {
      check_small(shape, is_bfloat16, seed++);
      std::fflush(stdout);
    }
  }
}

}  // namespace
