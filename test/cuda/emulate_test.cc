// The CUDA kernels, emulated, against the kernels for CPUs: forward and backward, every kind of operand and option.
// Says which kernels it ran.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../../kernels/cpu/attention.h"
#include "emulated_hopper.h"
#include "emulator.h"
#include "plan.h"

using namespace flash_attention;

namespace {

std::set<std::string> ran;

struct Heap : Workspace {
  std::vector<void*> blocks;
  ~Heap() override {
    for (void* block : blocks) {
      std::free(block);
    }
  }
  void* allocate(size_t bytes) override {
    const size_t whole = (bytes + 255) / 256 * 256 + 256;
    blocks.push_back(std::aligned_alloc(256, whole));
    std::memset(blocks.back(), 0xff, whole);  // NaN to whoever reads what was not written
    return blocks.back();
  }
};

void run_plan(const cuda::Plan& plan) {
  if (!plan.problem.empty()) {
    std::printf("plan: %s\n", plan.problem.c_str());
    std::exit(1);
  }
  Heap heap;
  cuda::Params params = bound_params(plan, heap.allocate(static_cast<size_t>(plan.workspace_bytes)));
  cuda::Params odd = params;
  odd.parts = 1;
  odd.part_keys = params.key_length;
  odd.all_odd = 0;
  for (const cuda::Launch& launch : plan.launches) {
    if (launch.takes == cuda::Launch::Takes::hopper) {
      ran.insert(launch.kernel);
      hopper::HopperParams hopper_params;
      if (make_hopper_params(emulated_tensor_map, params, launch.hopper, &hopper_params) != 0 ||
          !run_emulated_hopper(launch.kernel.c_str(), &hopper_params, launch.x, launch.threads)) {
        std::printf("no kernel %s\n", launch.kernel.c_str());
        std::exit(1);
      }
      continue;
    }
    void* kernel = dlsym(RTLD_DEFAULT, launch.kernel.c_str());
    if (!kernel) {
      std::printf("no kernel %s\n", launch.kernel.c_str());
      std::exit(1);
    }
    ran.insert(launch.kernel);
    params.which = launch.which;
    emulator::launch({launch.x, launch.y, launch.z}, launch.threads, [&] {
      if (launch.takes == cuda::Launch::Takes::clear) {
        reinterpret_cast<void (*)(cuda::ClearParams)>(kernel)(launch.clear);
      } else {
        reinterpret_cast<void (*)(cuda::Params)>(kernel)(
            launch.takes == cuda::Launch::Takes::odd_params ? odd : params);
      }
    });
  }
}

struct Case {
  const char* name;
  int64_t batch, nq, nk, hq, hkv, d, dv;
  cuda::ComputeType compute;
  int left = -1, right = -1;
  bool bottom_right = true;
  double softcap = 0, dropout = 0, scale = 0;
  bool alibi = false, mask = false, sinks = false, sequences = false, packed = false;
  float sink_size = 1;
  /** Bias's own axes, or none. */
  int bias[4] = {0, 0, 0, 0};
  int page = 0;
  /** A NaN or infinity in: 'q', 'k', 'v', 'o' (dO). */
  char odd = 0;
  float odd_value = NAN;
  /** An element far beyond the others, in a row that flash_sample does not look at: of the same letters. */
  char outlier = 0;
  /**
   * Numbers far apart, by so many powers of two, whose partners make the small ones count. 'q': columns of q and, the
   * other way, of k; 'v': of v and dO; 'w': keys with small weights and large values. Judged by what rounding q, k, v
   * and dO to tensorfloat32 costs.
   */
  char wide = 0;
  int wide_by = 0;
  bool backward = true;
  int multiprocessors = 1;
  bool hopper = false, any_order = false;
};

std::mt19937 random_source(1);

std::vector<float> random_floats(size_t count, float scale = 1) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random_source) * scale;
  }
  return values;
}

int failures = 0;

double most_apart(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t n = 0; n < a.size(); n++) {
    most = std::max(most, std::fabs(static_cast<double>(a[n]) - b[n]));
  }
  return most;
}

float rounded_to_tensorfloat32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
  std::memcpy(&x, &bits, 4);
  return x;
}

/** @param rounded what rounded operands give, or empty: the error may be twice that of these */
double compare(const Case& of, const char* what, const std::vector<float>& ours, const std::vector<float>& reference,
               const std::vector<float>& rounded) {
  const double limit = of.compute == cuda::ComputeType::bfloat16 ? 1.5e-2
      : of.compute == cuda::ComputeType::float32                 ? 3e-6
                                                                 : 2e-3;
  double error = 0, size = 0;
  if (!rounded.empty()) {
    const double ratio = most_apart(ours, reference) / most_apart(rounded, reference);
    if (!(ratio <= 2)) {
      std::printf("FAILED %s: the error of %s is %.2f times that of rounded operands\n", of.name, what, ratio);
      failures++;
    }
    return ratio;
  }
  for (size_t n = 0; n < ours.size(); n++) {
    const bool same = std::isfinite(ours[n]) == std::isfinite(reference[n]) &&
        (std::isfinite(ours[n]) || std::isnan(ours[n]) == std::isnan(reference[n]));
    if (!same) {
      std::printf("FAILED %s: %s[%zu] is %g, not %g\n", of.name, what, n, ours[n], reference[n]);
      failures++;
      return NAN;
    }
    if (std::isfinite(ours[n])) {
      error += std::pow(static_cast<double>(ours[n]) - reference[n], 2);
      size += std::pow(static_cast<double>(reference[n]), 2);
    }
  }
  const double relative = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
  if (!(relative <= limit)) {
    std::printf("FAILED %s: %s is off by %.2e\n", of.name, what, relative);
    failures++;
  }
  return relative;
}

void run_case(const Case& of) {
  Problem problem;
  problem.batch = of.batch;
  problem.query_length = of.nq;
  problem.key_length = of.nk;
  problem.query_rows = of.packed ? of.batch * of.nq - 3 : of.nq;
  problem.key_rows = of.packed ? of.batch * of.nk - 5 : of.page ? of.page : of.nk;
  problem.query_heads = of.hq;
  problem.key_heads = of.hkv;
  problem.head_size = of.d;
  problem.value_size = of.dv;
  problem.page_size = of.page;
  problem.pages_per_sequence = of.page ? (of.nk + of.page - 1) / of.page : 0;
  problem.key_batches = of.page ? of.batch * problem.pages_per_sequence : of.batch;
  problem.packed_sequences = of.packed;
  problem.has_sequences = of.sequences || of.packed;
  problem.window_left = of.left;
  problem.window_right = of.right;
  problem.bottom_right = of.bottom_right;
  problem.softmax_scale = of.scale != 0 ? of.scale : 1 / std::sqrt(static_cast<double>(of.d));
  problem.softcap = of.softcap;
  problem.dropout_p = of.dropout;
  problem.deterministic = !of.any_order;
  problem.seed_low = 17;
  problem.seed_high = 4;
  const int64_t q_batches = of.packed ? 1 : of.batch, k_batches = of.packed ? 1 : problem.key_batches;
  problem.q = {0, problem.query_rows * of.hq * of.d, of.hq * of.d, of.d};
  problem.k = {0, problem.key_rows * of.hkv * of.d, of.hkv * of.d, of.d};
  problem.v = {0, problem.key_rows * of.hkv * of.dv, of.hkv * of.dv, of.dv};
  problem.output = {0, problem.query_rows * of.hq * of.dv, of.hq * of.dv, of.dv};
  problem.lse_batch = problem.query_rows * of.hq;
  problem.lse_head = problem.query_rows;
  if (of.packed) {
    problem.q.batch = problem.k.batch = problem.v.batch = problem.output.batch = problem.lse_batch = 0;
  }
  auto q = random_floats(q_batches * problem.query_rows * of.hq * of.d);
  auto k = random_floats(k_batches * problem.key_rows * of.hkv * of.d);
  auto v = random_floats(k_batches * problem.key_rows * of.hkv * of.dv);
  auto d_output = random_floats(q_batches * problem.query_rows * of.hq * of.dv, 1e-3f);
  const size_t outputs = d_output.size(), rows = q_batches * problem.query_rows * of.hq;
  auto d_lse = random_floats(rows, 1e-3f);
  if (of.odd) {
    auto& where = of.odd == 'q' ? q : of.odd == 'k' ? k : of.odd == 'v' ? v : d_output;
    where[where.size() / 2 + 3] = of.odd_value;
  }
  if (of.outlier) {
    auto& where = of.outlier == 'q' ? q : of.outlier == 'k' ? k : of.outlier == 'v' ? v : d_output;
    const bool is_query = of.outlier == 'q' || of.outlier == 'o';
    where[5 * where.size() / ((is_query ? of.nq : of.nk) * of.batch) + 3] = of.outlier == 'o' ? 0.04f : 40.f;
  }
  for (size_t n = 0; n < q.size() && of.wide == 'q'; n += 2) {
    q[n] = std::ldexp(q[n], -of.wide_by);
  }
  for (size_t n = 0; n < k.size() && of.wide == 'q'; n += 2) {
    k[n] = std::ldexp(k[n], of.wide_by);
  }
  for (size_t n = 0; n < v.size() && of.wide == 'v'; n += 2) {
    v[n] = std::ldexp(v[n], -of.wide_by);
  }
  for (size_t n = 0; n < d_output.size() && of.wide == 'v'; n += 2) {
    d_output[n] = std::ldexp(d_output[n], of.wide_by);
  }
  if (of.wide == 'w') {
    // The score of every fourth key is less by ln 2^wide_by.
    for (size_t row = 0; row < q.size() / of.d; row++) {
      q[row * of.d] = 1;
    }
    for (size_t row = 0; row < k.size() / of.d; row++) {
      const bool is_light = row / of.hkv % 4 == 1;
      k[row * of.d] = is_light ? static_cast<float>(-of.wide_by * M_LN2 * std::sqrt(static_cast<double>(of.d))) : 0.f;
      for (int64_t n = 0; n < of.dv && is_light; n++) {
        v[row * of.dv + n] = std::ldexp(v[row * of.dv + n], of.wide_by);
      }
    }
  }
  std::vector<float> slopes = random_floats(of.hq), sinks = random_floats(of.hq, of.sink_size), bias;
  for (float& slope : slopes) {
    slope = std::fabs(slope) * 0.1f;
  }
  std::vector<uint8_t> mask(of.batch * of.nq * of.nk);
  for (auto& bit : mask) {
    bit = random_source() % 4 != 0;
  }
  problem.mask = {of.nq * of.nk, 0, of.nk, 1};
  if (of.bias[0]) {
    int64_t count = 1, strides[4];
    for (int axis = 3; axis >= 0; axis--) {
      problem.bias_shape[axis] = of.bias[axis];
      strides[axis] = of.bias[axis] == 1 ? 0 : count;
      count *= of.bias[axis];
    }
    problem.bias = {strides[0], strides[1], strides[2], strides[3]};
    bias = random_floats(count);
    bias[count / 2] = -INFINITY;
  }
  std::vector<int32_t> sequences(of.batch * 5), table;
  int32_t q_first = 0, k_first = 0;
  for (int64_t b = 0; b < of.batch; b++) {
    const int32_t queries = static_cast<int32_t>(of.nq - (b == 0 ? 3 : 0));
    const int32_t keys = static_cast<int32_t>(of.nk - (b == 0 ? 5 : 0));
    const int32_t row[5] = {of.packed ? q_first : 0, queries, of.packed ? k_first : 0, keys, static_cast<int32_t>(b)};
    std::memcpy(&sequences[b * 5], row, sizeof row);
    q_first += queries;
    k_first += keys;
  }
  for (int64_t n = 0; n < problem.key_batches && of.page; n++) {
    table.push_back(static_cast<int32_t>(problem.key_batches - 1 - n));
  }
  Tensors tensors;
  tensors.q = q.data();
  tensors.k = k.data();
  tensors.v = v.data();
  tensors.mask = of.mask ? mask.data() : nullptr;
  tensors.bias = of.bias[0] ? bias.data() : nullptr;
  tensors.alibi_slopes = of.alibi ? slopes.data() : nullptr;
  tensors.sinks = of.sinks ? sinks.data() : nullptr;
  tensors.sequences = problem.has_sequences ? sequences.data() : nullptr;
  tensors.block_table = of.page ? table.data() : nullptr;

  struct Results {
    std::vector<float> output, lse, tail, dq, dk, dv, dbias;
  } reference, rounded, ours;
  for (Results* results : {&reference, &rounded, &ours}) {
    const float poison = results == &ours ? 12345.f : 54321.f;
    results->output.assign(outputs, poison);
    results->lse.assign(rows, poison);
    results->tail.assign(rows, poison);
    results->dq.assign(q.size(), poison);
    results->dk.assign(k.size(), poison);
    results->dv.assign(v.size(), poison);
    results->dbias.assign(bias.size(), poison);
  }
  const auto outputs_of = [](Results& r) { return ForwardOutputs{r.output.data(), r.lse.data(), r.tail.data()}; };
  const float* of_output = d_output.data();
  const auto inputs_of = [&](Results& r) {
    return BackwardInputs{r.output.data(), r.lse.data(), r.tail.data(), of_output, d_lse.data()};
  };
  const auto gradients_of = [&](Results& r) {
    return Gradients{r.dq.data(), r.dk.data(), r.dv.data(), of.bias[0] ? r.dbias.data() : nullptr};
  };
  const auto run_on_cpu = [&](Results& results) {
    Heap heap;
    attention_forward(problem, tensors, outputs_of(results), heap, 1);
    if (of.backward) {
      attention_backward(problem, tensors, inputs_of(results), gradients_of(results), heap, 1);
    }
  };
  run_on_cpu(reference);
  if (of.wide) {
    std::vector<float> copies[] = {q, k, v, d_output};
    for (std::vector<float>& copy : copies) {
      std::transform(copy.begin(), copy.end(), copy.begin(), rounded_to_tensorfloat32);
    }
    tensors.q = copies[0].data(), tensors.k = copies[1].data(), tensors.v = copies[2].data();
    of_output = copies[3].data();
    run_on_cpu(rounded);
    tensors.q = q.data(), tensors.k = k.data(), tensors.v = v.data(), of_output = d_output.data();
  } else {
    rounded = Results();
  }
  cuda::CallKind call;
  call.compute = of.compute;
  call.has_hopper = of.hopper;
  call.family = cuda::Family::hopper;
  run_plan(make_forward_plan(problem, tensors, outputs_of(ours), call, of.multiprocessors));
  const double output = compare(of, "output", ours.output, reference.output, rounded.output);
  const double lse = compare(of, "lse", ours.lse, reference.lse, rounded.lse);
  // What a row is beside a sink of hundreds, only both parts of the LSE tell.
  for (size_t row = 0; row < rows && of.sink_size != 1; row++) {
    const double apart = (static_cast<double>(ours.lse[row]) - reference.lse[row]) +
        (static_cast<double>(ours.tail[row]) - reference.tail[row]);
    if (!(std::fabs(apart) <= 6e-7)) {
      std::printf("FAILED %s: the LSE of row %zu is off by %.2e\n", of.name, row, apart);
      failures++;
    }
  }
  double errors[4] = {};
  if (of.backward) {
    Results again = ours;
    call.may_be_few = false;
    run_plan(make_forward_plan(problem, tensors, outputs_of(again), call, of.multiprocessors));
    compare(of, "output by tiles", again.output, reference.output, rounded.output);
    call.is_backward = true;
    run_plan(make_backward_plan(problem, tensors, inputs_of(again), gradients_of(ours), call, of.multiprocessors));
    errors[0] = compare(of, "dQ", ours.dq, reference.dq, rounded.dq);
    errors[1] = compare(of, "dK", ours.dk, reference.dk, rounded.dk);
    errors[2] = compare(of, "dV", ours.dv, reference.dv, rounded.dv);
    if (of.bias[0]) {
      errors[3] = compare(of, "dBias", ours.dbias, reference.dbias, rounded.dbias);
    }
  }
  std::printf("%-26s %-7s output %.1e lse %.1e dQ %.1e dK %.1e dV %.1e dBias %.1e\n", of.name, of.any_order ? "added" : of.hopper ? "hopper" : "", output, lse, errors[0],
              errors[1], errors[2], errors[3]);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  const auto F32 = cuda::ComputeType::float32, F16 = cuda::ComputeType::float16, BF16 = cuda::ComputeType::bfloat16;
  std::vector<Case> cases;
  for (const auto compute : {BF16, F16, F32}) {
    const auto add = [&](Case of) {
      of.compute = compute;
      cases.push_back(of);
    };
    add({.name = "plain 64", .batch = 1, .nq = 70, .nk = 90, .hq = 2, .hkv = 1, .d = 64, .dv = 64, .compute = F32});
    add({.name = "causal 128, odd sizes", .batch = 2, .nq = 67, .nk = 131, .hq = 1, .hkv = 1, .d = 100, .dv = 127,
         .compute = F32, .right = 0});
    add({.name = "causal 256", .batch = 1, .nq = 40, .nk = 50, .hq = 1, .hkv = 1, .d = 200, .dv = 256, .compute = F32,
         .right = 0});
    add({.name = "softcap, alibi, dropout, mask 64", .batch = 1, .nq = 70, .nk = 66, .hq = 2, .hkv = 2, .d = 48,
         .dv = 40, .compute = F32, .softcap = 3, .dropout = 0.3, .alibi = true, .mask = true, .sinks = true});
    add({.name = "bias 128", .batch = 2, .nq = 70, .nk = 40, .hq = 2, .hkv = 1, .d = 128, .dv = 96, .compute = F32,
         .right = 0, .bias = {1, 2, 70, 40}});
    add({.name = "bias 256 broadcast", .batch = 1, .nq = 20, .nk = 40, .hq = 2, .hkv = 1, .d = 256, .dv = 96,
         .compute = F32, .softcap = 4, .bias = {1, 1, 1, 40}});
    add({.name = "bias of queries", .batch = 2, .nq = 20, .nk = 40, .hq = 2, .hkv = 1, .d = 16, .dv = 24,
         .compute = F32, .bias = {2, 1, 20, 1}});
    add({.name = "bias of heads", .batch = 2, .nq = 20, .nk = 40, .hq = 2, .hkv = 1, .d = 16, .dv = 24,
         .compute = F32, .bias = {1, 2, 1, 1}});
    add({.name = "few rows together", .batch = 1, .nq = 9, .nk = 100, .hq = 4, .hkv = 2, .d = 64, .dv = 64,
         .compute = F32, .right = 0, .sinks = true});
    add({.name = "windows, top-left", .batch = 1, .nq = 150, .nk = 140, .hq = 1, .hkv = 1, .d = 32, .dv = 32,
         .compute = F32, .left = 20, .right = 5, .bottom_right = false});
    add({.name = "lengths", .batch = 2, .nq = 30, .nk = 40, .hq = 2, .hkv = 1, .d = 32, .dv = 32, .compute = F32,
         .right = 0, .sinks = true, .sequences = true});
    add({.name = "packed", .batch = 3, .nq = 66, .nk = 70, .hq = 1, .hkv = 1, .d = 32, .dv = 32, .compute = F32,
         .right = 0, .packed = true});
    add({.name = "split keys", .batch = 1, .nq = 16, .nk = 700, .hq = 1, .hkv = 1, .d = 64, .dv = 64, .compute = F32,
         .right = 0, .sinks = true, .backward = false, .multiprocessors = 8});
    add({.name = "scale below 0", .batch = 1, .nq = 20, .nk = 30, .hq = 1, .hkv = 1, .d = 32, .dv = 32, .compute = F32,
         .scale = -0.3});
    for (const char odd : {'q', 'k', 'v', 'o'}) {
      add({.name = "NaN", .batch = 2, .nq = 20, .nk = 24, .hq = 2, .hkv = 2, .d = 32, .dv = 32, .compute = F32,
           .right = 0, .odd = odd});
    }
    // bf16 needs no magnitudes, and rounds what such an element gives too much for the limit.
    for (const char outlier : {'q', 'k', 'v', 'o'}) {
      if (compute == BF16) {
        continue;
      }
      add({.name = "outlier", .batch = 2, .nq = 140, .nk = 150, .hq = 2, .hkv = 1, .d = 64, .dv = 64, .compute = F32,
           .right = 0, .outlier = outlier, .backward = outlier != 'k'});
    }
    add({.name = "infinite v, bias", .batch = 1, .nq = 20, .nk = 24, .hq = 2, .hkv = 2, .d = 32, .dv = 32,
         .compute = F32, .right = 0, .bias = {1, 2, 20, 24}, .odd = 'v', .odd_value = INFINITY});
    add({.name = "infinite k", .batch = 1, .nq = 20, .nk = 24, .hq = 2, .hkv = 2, .d = 32, .dv = 32, .compute = F32,
         .right = 0, .odd = 'k', .odd_value = -INFINITY});
  }
  for (const char wide : {'q', 'v', 'w'}) {
    for (const int by : {10, wide == 'q' ? 24 : 20}) {
      cases.push_back({.name = "wide", .batch = 1, .nq = 140, .nk = 150, .hq = 2, .hkv = 1, .d = 64, .dv = 64,
                       .compute = cuda::ComputeType::tensorfloat32, .wide = wide, .wide_by = by});
    }
  }
  // The same tables as far as the Hopper kernels go, and what only they could get wrong: sequences that end long before
  // their tiles and the next sequence's, more tiles than blocks.
  const std::set<std::string> for_hopper = {"plain 64", "causal 128, odd sizes", "causal 256", "windows, top-left",
                                            "NaN", "infinite k", "outlier", "wide"};
  for (const Case of : std::vector<Case>(cases)) {
    if (of.compute != F32 && for_hopper.count(of.name)) {
      cases.push_back(of);
      cases.back().hopper = true;
    }
  }
  for (const auto compute : {BF16, F16}) {
    cases.push_back({.name = "Hopper, lengths", .batch = 3, .nq = 270, .nk = 300, .hq = 2, .hkv = 1, .d = 32, .dv = 64,
                     .compute = compute, .right = 0, .sinks = true, .sequences = true, .multiprocessors = 2,
                     .hopper = true});
    cases.push_back({.name = "Hopper, packed", .batch = 3, .nq = 135, .nk = 270, .hq = 2, .hkv = 2, .d = 100, .dv = 90,
                     .compute = compute, .left = 200, .right = 0, .packed = true, .multiprocessors = 2, .hopper = true});
    // Rows that no vector of floats fits; an odd value in a head that others share.
    cases.push_back({.name = "Hopper, odd rows", .batch = 1, .nq = 140, .nk = 150, .hq = 2, .hkv = 1, .d = 33, .dv = 64,
                     .compute = compute, .right = 0, .hopper = true});
    cases.push_back({.name = "Hopper, infinite q", .batch = 2, .nq = 200, .nk = 150, .hq = 4, .hkv = 2, .d = 128,
                     .dv = 128, .compute = compute, .right = 0, .odd = 'q', .odd_value = INFINITY, .hopper = true});
    cases.push_back({.name = "Hopper, packed 64", .batch = 3, .nq = 66, .nk = 135, .hq = 1, .hkv = 1, .d = 32, .dv = 32,
                     .compute = compute, .right = 0, .packed = true, .hopper = true});
  }
  for (const Case of : std::vector<Case>(cases)) {
    if (of.hopper && std::max(of.d, of.dv) <= 128) {
      cases.push_back(of);
      cases.back().any_order = true;
    }
  }
  for (const int64_t queries : {2, 30}) {
    cases.push_back({.name = "large sinks", .batch = 1, .nq = queries, .nk = 24, .hq = 8, .hkv = 8, .d = 32, .dv = 32,
                     .compute = F32, .right = 0, .sinks = true, .sink_size = 100, .backward = false});
  }
  for (const int64_t size : {64, 128, 256}) {
    for (const int64_t group : {1, 4, 8}) {
      cases.push_back({.name = "decode", .batch = 2, .nq = 1, .nk = 300, .hq = 2 * group, .hkv = 2, .d = size,
                       .dv = size, .compute = F32, .right = 0, .sinks = group == 4, .backward = size == 64,
                       .multiprocessors = group == 8 ? 1 : 4});
    }
  }
  // Rows that no copy of 16 bytes fits, and whose elements end inside a lane's; parts of what is seen.
  cases.push_back({.name = "few, odd sizes", .batch = 2, .nq = 1, .nk = 300, .hq = 6, .hkv = 2, .d = 99, .dv = 50,
                   .compute = F32, .right = 0, .backward = false, .multiprocessors = 3});
  cases.push_back({.name = "few, 200 and 100", .batch = 2, .nq = 3, .nk = 500, .hq = 2, .hkv = 2, .d = 200, .dv = 100,
                   .compute = F32, .right = 0, .sequences = true, .backward = false, .multiprocessors = 3});
  cases.push_back({.name = "few, window", .batch = 2, .nq = 2, .nk = 700, .hq = 4, .hkv = 2, .d = 64, .dv = 128,
                   .compute = F32, .left = 90, .right = 0, .sinks = true, .sequences = true, .backward = false,
                   .multiprocessors = 4});
  cases.push_back({.name = "few, every option", .batch = 2, .nq = 2, .nk = 300, .hq = 4, .hkv = 2, .d = 40, .dv = 48,
                   .compute = F32, .right = 3, .softcap = 3, .dropout = 0.3, .alibi = true, .mask = true,
                   .sinks = true, .bias = {1, 4, 2, 300}, .backward = false, .multiprocessors = 4});
  cases.push_back({.name = "few, packed", .batch = 3, .nq = 4, .nk = 200, .hq = 2, .hkv = 2, .d = 64, .dv = 64,
                   .compute = F32, .right = 0, .packed = true, .backward = false, .multiprocessors = 4});
  for (const char odd : {'q', 'k', 'v'}) {
    for (const float value : {NAN, INFINITY, -INFINITY}) {
      cases.push_back({.name = "few, odd values", .batch = 2, .nq = 4, .nk = 150, .hq = 4, .hkv = 2, .d = 64,
                       .dv = 64, .compute = F32, .right = 0, .mask = true, .odd = odd, .odd_value = value,
                       .backward = false, .multiprocessors = 4});
    }
  }
  cases.push_back({.name = "pages, long", .batch = 2, .nq = 1, .nk = 300, .hq = 8, .hkv = 2, .d = 50, .dv = 64,
                   .compute = F32, .right = 0, .sequences = true, .page = 16, .backward = false,
                   .multiprocessors = 4});
  cases.push_back({.name = "pages", .batch = 2, .nq = 1, .nk = 60, .hq = 4, .hkv = 2, .d = 50, .dv = 64, .compute = F32,
                   .right = 0, .sequences = true, .page = 16, .backward = false});
  cases.push_back({.name = "pages by tiles", .batch = 2, .nq = 20, .nk = 60, .hq = 2, .hkv = 2, .d = 50, .dv = 64,
                   .compute = F32, .right = 0, .sequences = true, .page = 16, .backward = false});
  for (const Case& of : cases) {
    if (count < 2 || std::strstr(of.name, arguments[1])) {
      run_case(of);
    }
  }
  int missing = 0;
  for (const cuda::BuiltKernel& kernel : cuda::built_kernels()) {
    if (!ran.count(kernel.name)) {
      missing++;
      std::printf("not run: %s\n", kernel.name.c_str());
    }
  }
  if (count < 2 && missing > 0) {
    failures++;
  }
  std::printf("%zu kernels run, %d not, %d failed\n", ran.size(), missing, failures);
  return failures > 0;
}
