// Problems for the Hopper kernels, their canonical operands, a float64 reference and the comparison: for try.cu on a
// GPU and kernels_test.cc on the emulator, which say how memory is had and kernels are started.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "../../../kernels/cuda/hopper/backward_sm90.cu"
#include "../../../kernels/cuda/hopper/forward_sm90.cu"

namespace cuda = flash_attention::cuda;
using namespace flash_attention::hopper;

namespace {

struct Kernel : HopperKernel {
  void (*function)(HopperParams);
};

/** Every kernel that is shipped, with its function; ends the program where a name has none. */
std::vector<Kernel> find_all_shipped() {
#define FLASH_FUNCTION(NAME) {#NAME, NAME}
  const std::map<std::string, void (*)(HopperParams)> functions = {
      FLASH_FUNCTION(hopper_forward_bf16_64),        FLASH_FUNCTION(hopper_forward_f16_64),
      FLASH_FUNCTION(hopper_forward_bf16_128),       FLASH_FUNCTION(hopper_forward_f16_128),
      FLASH_FUNCTION(hopper_forward_bf16_256),       FLASH_FUNCTION(hopper_forward_f16_256),
      FLASH_FUNCTION(hopper_key_gradient_bf16_64),   FLASH_FUNCTION(hopper_key_gradient_f16_64),
      FLASH_FUNCTION(hopper_key_gradient_bf16_128),  FLASH_FUNCTION(hopper_key_gradient_f16_128),
      FLASH_FUNCTION(hopper_added_gradient_bf16_64), FLASH_FUNCTION(hopper_added_gradient_f16_64),
      FLASH_FUNCTION(hopper_added_gradient_bf16_128), FLASH_FUNCTION(hopper_added_gradient_f16_128),
      FLASH_FUNCTION(hopper_query_sums_bf16_64),     FLASH_FUNCTION(hopper_query_sums_f16_64),
      FLASH_FUNCTION(hopper_query_sums_bf16_128),    FLASH_FUNCTION(hopper_query_sums_f16_128),
      FLASH_FUNCTION(hopper_query_gradient_bf16_64), FLASH_FUNCTION(hopper_query_gradient_f16_64),
      FLASH_FUNCTION(hopper_query_gradient_bf16_128), FLASH_FUNCTION(hopper_query_gradient_f16_128)};
  std::vector<Kernel> all;
  for (const HopperKernel& kernel : hopper_kernels()) {
    all.push_back({kernel, functions.at(kernel.name)});
  }
  return all;
}
const std::vector<Kernel> SHIPPED = find_all_shipped();

// ---- Numbers on the host -------------------------------------------------------------------------------------

uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

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
  cuda::Params call = {};
  // [B][N][H][D], as they are after rounding; and places.
  std::vector<float> q, k, v, d_output, sinks;
  std::vector<cuda::SequencePlace> places;
  std::vector<void*> owned;
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

/**
 * Rows of a tensor [B][N][H][size] as canonical rows; brings the tensor to what they hold. As of the conversion there
 * are zeros up to the tile's end behind a sequence, and behind that nothing is written: here NaN.
 */
uint16_t* canonical(Setup& setup, std::vector<float>& tensor, int heads, int length, int size,
                    const cuda::CanonicalRows& rows, std::vector<int>& exponents, int group,
                    int32_t cuda::SequencePlace::* used) {
  const int dp = dp_of(setup.shape), batches = setup.shape.batch;
  std::vector<uint16_t> to(static_cast<size_t>(heads) * rows.rows * dp, 0xffff);
  for (int b = 0; b < batches; b++) {
    for (int h = 0; h < heads; h++) {
      const int tile_end = (setup.places[b].*used + cuda::TILE_ROWS - 1) / cuda::TILE_ROWS * cuda::TILE_ROWS;
      std::fill_n(to.begin() + (h * rows.rows + b * rows.per_batch) * dp, tile_end * dp, 0);
      const int exponent = exponents[b * setup.shape.key_heads + h / group];
      for (int n = 0; n < length; n++) {
        float* from = &tensor[((static_cast<size_t>(b) * length + n) * heads + h) * size];
        uint16_t* row = &to[(h * rows.rows + b * rows.per_batch + n) * dp];
        for (int d = 0; d < size && n < setup.places[b].*used; d++) {
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

/** Sizes, strides and places of canonical rows, of setup.shape. */
void lay_out(Setup& setup) {
  const Shape& shape = setup.shape;
  cuda::Params& call = setup.call;
  call.tile_counters = setup.own(static_cast<uint32_t*>(device_allocate(4 * cuda::TILE_COUNTERS)));
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
  call.heads_per_unit = 1;
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
}

void fill(Setup& setup, const Shape& shape, bool is_bfloat16, uint32_t seed, bool has_gradient) {
  setup.shape = shape;
  setup.is_bfloat16 = is_bfloat16;
  lay_out(setup);
  cuda::Params& call = setup.call;
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
                            powers, group, &cuda::SequencePlace::queries);
  powers = exponents(&cuda::GroupState::k);
  call.k16.high = canonical(setup, setup.k, shape.key_heads, shape.keys, shape.head_size, call.key_place, powers, 1,
                            &cuda::SequencePlace::keys);
  powers = exponents(&cuda::GroupState::v);
  call.v16.high = canonical(setup, setup.v, shape.key_heads, shape.keys, shape.value_size, call.key_place, powers, 1,
                            &cuda::SequencePlace::keys);
  call.output = setup.own(poisoned(setup.output_count));
  call.lse = setup.own(poisoned(setup.lse_count));
  call.lse_tail = setup.own(poisoned(setup.lse_count));
  if (has_gradient) {
    call.d_output = setup.own(upload(setup.d_output));
    powers = exponents(&cuda::GroupState::d_output);
    call.d_output16.high = canonical(setup, setup.d_output, shape.query_heads, shape.queries, shape.value_size,
                                     call.query_place, powers, group, &cuda::SequencePlace::queries);
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
    call.d_q_sums = setup.own(upload(std::vector<float>(rows * call.dp, 0.f)));
  }
  call.groups = setup.own(upload(groups));
}

HopperParams launch_params(const Setup& setup, const Kernel& kernel) {
  HopperParams params;
  const int result = make_hopper_params(device_encoder(), setup.call, hopper_launch(setup.call, kernel), &params);
  if (result != 0) {
    std::printf("cuTensorMapEncodeTiled: %d\n", result);
    std::exit(2);
  }
  return params;
}

int blocks_of(const HopperParams& params, const Kernel& kernel) {
  HopperLaunch launch = {};
  launch.pass = kernel.pass;
  launch.order = params.order;
  return static_cast<int>(launch.blocks(device_processors()));
}

/** The kernel that is shipped for a pass. */
const Kernel& find_shipped(Pass pass, int dp, bool is_bfloat16) {
  for (const Kernel& kernel : SHIPPED) {
    if (kernel.pass == pass && kernel.dp == dp && kernel.is_bfloat16 == is_bfloat16) {
      return kernel;
    }
  }
  std::abort();
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
    return sum * setup.call.softmax_scale;
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

/** What all kernels should give, [B][N][H][size]; NaN where nothing is said. LSE is [B][Hq][Nq]. */
struct Exact {
  std::vector<double> output, lse, d_q, d_k, d_v;
  /** Of canonical rows: LSE as the backward kernels read it, and D. */
  std::vector<float> lse_high, delta;
};

Exact find_exact(const Setup& setup, bool has_gradient) {
  const Shape& shape = setup.shape;
  const cuda::Params& call = setup.call;
  const Reference reference{setup};
  const int group = shape.query_heads / shape.key_heads;
  Exact exact;
  exact.output.assign(setup.output_count, 0);
  exact.lse.assign(setup.lse_count, 0);
  if (has_gradient) {
    const size_t rows = shape.query_heads * call.query_place.rows;
    // Rows that are not there hold NaN: the kernels must not let it out.
    exact.lse_high.assign(rows, NAN);
    exact.delta.assign(rows, NAN);
    exact.d_q.assign(setup.q_count, 0);
    exact.d_k.assign(setup.k_count, 0);
    exact.d_v.assign(setup.v_count, 0);
  }
  std::vector<double> weights;
  for (int b = 0; b < shape.batch; b++) {
    for (int h = 0; h < shape.query_heads; h++) {
      for (int i = 0; i < shape.queries; i++) {
        const double lse = reference.weigh(b, h, i, weights);
        const std::vector<double> sums = reference.output(b, h, weights);
        const size_t row = (static_cast<size_t>(b) * shape.queries + i) * shape.query_heads + h;
        std::copy(sums.begin(), sums.end(), exact.output.begin() + row * shape.value_size);
        exact.lse[(static_cast<size_t>(b) * shape.query_heads + h) * shape.queries + i] = lse;
        if (!has_gradient) {
          continue;
        }
        double delta = 0;
        for (int d = 0; d < shape.value_size; d++) {
          delta += sums[d] * setup.d_output[row * shape.value_size + d];
        }
        if (i < setup.places[b].queries) {
          const size_t to = h * call.query_place.rows + b * call.query_place.per_batch + i;
          exact.lse_high[to] = std::isinf(lse) ? INFINITE : static_cast<float>(lse * LOG2_E - call.weight_exponent);
          exact.delta[to] = std::isinf(lse) ? 0 : static_cast<float>(delta);
        }
        for (int j = 0; j < shape.keys; j++) {
          if (weights[j] == 0) {
            continue;
          }
          const size_t key = (static_cast<size_t>(b) * shape.keys + j) * shape.key_heads + h / group;
          const double slope = weights[j] * (reference.product(b, h, i, j) - delta) * call.softmax_scale;
          for (int d = 0; d < shape.head_size; d++) {
            exact.d_q[row * shape.head_size + d] += slope * setup.k[key * shape.head_size + d];
            exact.d_k[key * shape.head_size + d] += slope * setup.q[row * shape.head_size + d];
          }
          for (int d = 0; d < shape.value_size; d++) {
            exact.d_v[key * shape.value_size + d] += weights[j] * setup.d_output[row * shape.value_size + d];
          }
        }
      }
    }
  }
  // Rows of keys past a sequence are the caller's to clear.
  for (size_t i = 0; has_gradient && i < setup.k_count / shape.head_size; i++) {
    const size_t row = i / shape.key_heads;
    if (static_cast<int>(row % shape.keys) >= setup.places[row / shape.keys].keys) {
      std::fill_n(exact.d_k.begin() + i * shape.head_size, shape.head_size, NAN);
      std::fill_n(exact.d_v.begin() + i * shape.value_size, shape.value_size, NAN);
    }
  }
  return exact;
}

/** What is said of a kernel: its worst error over what is allowed, and the words for it. */
struct Verdict {
  double worst = 0;
  std::string words;
  bool holds() const { return worst <= 1; }
};

/**
 * Compares tensors [B][N][H][size] by ‖out − ref‖ / ‖ref‖, or where `is_absolute` by the largest difference. Says of
 * one that is wrong which elements are: how many, the first, and which eights of rows (of 64) and of columns hold any.
 */
void compare(Verdict& verdict, const char* name, const std::vector<float>& out, const std::vector<double>& ref,
             int length, int heads, int size, double allowed, bool is_absolute = false) {
  double difference = 0, norm = 0, largest = 0;
  size_t count = 0;
  for (size_t i = 0; i < ref.size(); i++) {
    if (!std::isnan(ref[i])) {
      const double error = out[i] == ref[i] ? 0 : out[i] - ref[i];
      difference += error * error;
      norm += std::isinf(ref[i]) ? 0 : ref[i] * ref[i];
      largest = std::fabs(error) <= largest ? largest : std::fabs(error);
      count++;
    }
  }
  const double error = is_absolute ? largest : norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
  const double worst = error / allowed;
  // NaN stays, whatever comes after it.
  verdict.worst = worst <= verdict.worst || std::isnan(verdict.worst) ? verdict.worst : worst;
  char text[240];
  std::snprintf(text, sizeof text, " %s %.1e", name, error);
  verdict.words += text;
  if (worst <= 1) {
    return;
  }
  const double bound = allowed * (is_absolute ? 1 : 8 * std::sqrt(norm / (count ? count : 1)) + 1e-30);
  size_t wrong = 0, unwritten = 0, first = ref.size();
  std::string rows(8, '.'), columns((size + 7) / 8, '.');
  for (size_t i = 0; i < ref.size(); i++) {
    if (!std::isnan(ref[i]) && out[i] != ref[i] && !(std::fabs(out[i] - ref[i]) <= bound)) {
      first = std::min(first, i);
      wrong++;
      unwritten += std::isnan(out[i]);
      rows[i / size / heads % length % 64 / 8] = 'x';
      columns[i % size / 8] = 'x';
    }
  }
  if (first == ref.size()) {
    std::snprintf(text, sizeof text, " FAILED (a little everywhere)");
  } else {
    std::snprintf(text, sizeof text,
                  " FAILED (%zu of %zu, NaN %zu; first b%zu n%zu h%zu d%zu: %.6g for %.6g; rows %s columns %s)", wrong,
                  count, unwritten, first / size / heads / length, first / size / heads % length, first / size % heads,
                  first % size, out[first], ref[first], rows.c_str(), columns.c_str());
  }
  verdict.words += text;
}

std::string words_of(const Shape& shape) {
  char text[200];
  std::snprintf(text, sizeof text, "B%d Hq%d Hkv%d Nq%d Nk%d D%d Dv%d w(%d,%d)%s%s%s x%g", shape.batch,
                shape.query_heads, shape.key_heads, shape.queries, shape.keys, shape.head_size, shape.value_size,
                shape.window_left, shape.window_right, shape.bottom_right ? " br" : "", shape.has_sinks ? " sinks" : "",
                shape.has_lengths ? " lengths" : "", shape.magnitude);
  return text;
}

/** One kernel, on a small problem, whole. Backward kernels are given the exact LSE and D; Pass::sums is run with `all`. */
Verdict check_kernel(const Kernel& kernel, const Shape& shape, uint32_t seed) {
  const bool has_gradient = kernel.pass != Pass::forward;
  Setup setup;
  fill(setup, shape, kernel.is_bfloat16, seed, has_gradient);
  const Exact exact = find_exact(setup, has_gradient);
  const cuda::Params& call = setup.call;
  if (has_gradient) {
    device_write(call.lse_high, exact.lse_high.data(), exact.lse_high.size() * 4);
    device_write(call.delta, exact.delta.data(), exact.delta.size() * 4);
  }
  device_launch(launch_params(setup, kernel), kernel);
  if (kernel.pass == Pass::all) {
    const Kernel& sums = find_shipped(Pass::sums, kernel.dp, kernel.is_bfloat16);
    device_launch(launch_params(setup, sums), sums);
  }
  const double allowed = kernel.is_bfloat16 ? 6e-3 : 8e-4;
  Verdict verdict;
  if (kernel.pass == Pass::forward) {
    std::vector<float> lse = download(call.lse, setup.lse_count);
    const std::vector<float> tail = download(call.lse_tail, setup.lse_count);
    compare(verdict, "O", download(call.output, setup.output_count), exact.output, shape.queries, shape.query_heads,
            shape.value_size, allowed);
    // The tail is what makes the difference to the exact LSE smaller than a float can say.
    std::vector<double> rest(setup.lse_count);
    for (size_t i = 0; i < lse.size(); i++) {
      const bool is_same = std::isinf(exact.lse[i]) && lse[i] == exact.lse[i];
      rest[i] = is_same ? 0 : exact.lse[i] - lse[i];
      lse[i] = tail[i];
    }
    compare(verdict, "LSE", lse, rest, shape.query_heads, 1, shape.queries,
            2e-5 * (1 + shape.magnitude * shape.magnitude), true);
  }
  if (kernel.pass == Pass::queries || kernel.pass == Pass::all) {
    compare(verdict, "dQ", download(call.d_q, setup.q_count), exact.d_q, shape.queries, shape.query_heads,
            shape.head_size, 2 * allowed);
  }
  if (owns_keys(kernel.pass)) {
    compare(verdict, "dK", download(call.d_k, setup.k_count), exact.d_k, shape.keys, shape.key_heads, shape.head_size,
            2 * allowed);
    compare(verdict, "dV", download(call.d_v, setup.v_count), exact.d_v, shape.keys, shape.key_heads, shape.value_size,
            allowed);
  }
  return verdict;
}

const std::vector<Shape> SHAPES = {
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

}  // namespace
