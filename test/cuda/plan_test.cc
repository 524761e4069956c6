// kernels/cuda/plan.cc: what is chosen, what it takes, and that nothing it hands out overlaps or leaves the workspace.
#include "plan.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

using namespace flash_attention;
using namespace flash_attention::cuda;

namespace {

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (!holds) {
    std::printf("FAILED: %s\n", what.c_str());
    failures++;
  }
}

struct Shape {
  int64_t batch, nq, nk, hq, hkv, d, dv;
};

Problem problem_of(const Shape& shape) {
  Problem problem;
  problem.batch = problem.key_batches = shape.batch;
  problem.query_length = problem.query_rows = shape.nq;
  problem.key_length = problem.key_rows = shape.nk;
  problem.query_heads = shape.hq;
  problem.key_heads = shape.hkv;
  problem.head_size = shape.d;
  problem.value_size = shape.dv;
  return problem;
}

std::string kernels_of(const Plan& plan) {
  std::string names;
  for (const Launch& launch : plan.launches) {
    const bool is_hopper = launch.takes == Launch::Takes::hopper;
    names += (names.empty() ? "" : " ") + launch.kernel.substr(is_hopper ? 0 : 6);
  }
  return names;
}

/** Of every pointer into the workspace: where it starts, and bytes that kernels may touch. */
struct Part {
  uintptr_t at;
  int64_t bytes;
};

void check_workspace(const Plan& plan, const std::string& name) {
  const Params& p = plan.params;
  const int64_t queries = p.units * p.query_place.rows, keys = p.key_heads * p.key_place.rows;
  std::vector<Part> parts;
  const auto add = [&](const void* pointer, int64_t bytes) {
    if (pointer) {
      parts.push_back({reinterpret_cast<uintptr_t>(pointer) - 1, bytes});
    }
  };
  add(p.places, p.batch * static_cast<int64_t>(sizeof(SequencePlace)));
  add(p.tile_counters, TILE_COUNTERS * 4);
  add(p.groups, static_cast<int64_t>(p.batch) * p.key_heads * static_cast<int64_t>(sizeof(GroupState)));
  for (const Operand* operand : {&p.q16, &p.d_output16}) {
    add(operand->high, queries * p.dp * 2);
    add(operand->low, queries * p.dp * 2);
  }
  for (const Operand* operand : {&p.k16, &p.v16}) {
    add(operand->high, keys * p.dp * 2);
    add(operand->low, keys * p.dp * 2);
  }
  add(p.part_output, p.parts * queries * p.value_size * 4);
  add(p.part_state, p.parts * queries * 8);
  add(p.lse_high, queries * 4);
  add(p.lse_low, queries * 4);
  add(p.delta, queries * 4);
  add(p.d_q_sums, queries * p.dp * 4);
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.at < b.at; });
  for (size_t n = 0; n < parts.size(); n++) {
    const int64_t end = static_cast<int64_t>(parts[n].at) + parts[n].bytes;
    expect(parts[n].at % 256 == 0, name + ": aligned");
    expect(end <= (n + 1 < parts.size() ? static_cast<int64_t>(parts[n + 1].at) : plan.workspace_bytes),
           name + ": parts lie apart and inside");
  }
  expect(static_cast<int64_t>(p.parts) * p.part_keys >= p.key_length, name + ": all keys are in a part");
  expect((p.parts - 1) * static_cast<int64_t>(p.part_keys) < std::max(1, p.key_length), name + ": no part is empty");
}

void check(const std::string& name, const Plan& plan, const std::string& kernels) {
  expect(plan.problem.empty(), name + ": " + plan.problem);
  expect(kernels_of(plan) == kernels, name + ": " + kernels_of(plan));
  check_workspace(plan, name);
}

/** Which kernels a device of compute capability 9.0 gets. */
void check_hopper() {
  float data[1] = {};
  uint8_t mask[1] = {};
  Tensors plain, masked;
  masked.mask = mask;
  Gradients gradients;
  gradients.d_q = gradients.d_k = gradients.d_v = data;
  const std::string to_forward = "locate convert_bf16 ";
  const std::string to_backward = "locate convert_bf16 row_statistics ";
  CallKind bf16;
  bf16.compute = ComputeType::bfloat16;
  bf16.has_hopper = true;
  const auto forward = [&](const Shape& shape, const CallKind& call, const Tensors& tensors) {
    return make_forward_plan(problem_of(shape), tensors, {}, call, 132);
  };
  const auto backward = [&](const Shape& shape, const CallKind& call, const Tensors& tensors) {
    return make_backward_plan(problem_of(shape), tensors, {}, gradients, call, 132);
  };
  const Plan plan = forward({4, 4096, 4096, 16, 4, 128, 128}, bf16, plain);
  check("hopper", plan, to_forward + "hopper_forward_bf16_128 rows_4_4");
  const Launch& launch = plan.launches[2];
  expect(plan.launches[1].which == 7 && plan.launches[1].y == 24, "hopper: q, k and v are converted in one launch");
  expect(launch.x == 132 && launch.threads == 384 && launch.hopper.tiles() == 4 * 16 * 32, "hopper: grid");
  check("hopper 64", forward({4, 4096, 4096, 16, 16, 40, 64}, bf16, plain), to_forward + "hopper_forward_bf16_64 rows_2_4");
  check("hopper 256", forward({4, 4096, 4096, 16, 16, 256, 64}, bf16, plain),
        to_forward + "hopper_forward_bf16_256 rows_8_4");
  check("hopper backward", backward({4, 4096, 4096, 16, 4, 128, 128}, bf16, plain),
        to_backward + "hopper_key_gradient_bf16_128 hopper_query_gradient_bf16_128 exact_d_query exact_d_key");
  check("hopper backward 256", backward({4, 4096, 4096, 16, 16, 256, 256}, bf16, plain),
        to_backward + "d_value_bf16_256_plain d_key_bf16_256_plain d_query_bf16_256_plain exact_d_query exact_d_key");
  check("hopper, mask", forward({4, 4096, 4096, 16, 16, 128, 128}, bf16, masked),
        to_forward + "forward_bf16_128_general rows_4_4");
  check("hopper backward, mask", backward({4, 4096, 4096, 16, 16, 128, 128}, bf16, masked),
        to_backward + "d_key_value_bf16_128_general d_query_bf16_128_general exact_d_query exact_d_key");
  // 72 tiles are more than half a device; 32 are less, and then keys are cut.
  check("hopper, few tiles", forward({1, 1024, 4096, 9, 9, 128, 128}, bf16, plain),
        to_forward + "hopper_forward_bf16_128 rows_4_4");
  check("hopper, fewer", forward({1, 1024, 4096, 4, 4, 128, 128}, bf16, plain),
        to_forward + "forward_bf16_128_plain merge rows_4_4");
  check("hopper, fewer, short", forward({1, 1024, 500, 4, 4, 128, 128}, bf16, plain),
        to_forward + "hopper_forward_bf16_128 rows_4_4");
  check("hopper, together", forward({64, 32, 4096, 16, 4, 128, 128}, bf16, plain),
        to_forward + "forward_bf16_128_plain rows_4_4");
  check("hopper, decode", forward({1, 1, 4096, 16, 4, 128, 128}, bf16, plain), "rows_4_4 merge");
  CallKind other = bf16;
  other.family = Family::mma_sync;
  check("not hopper", forward({4, 4096, 4096, 16, 16, 128, 128}, other, plain),
        to_forward + "forward_bf16_128_plain rows_4_4");
  other.family = Family::hopper;
  check("hopper by force", forward({1, 70, 4096, 4, 4, 128, 128}, other, plain),
        to_forward + "hopper_forward_bf16_128 rows_4_4");
  other.has_hopper = false;
  check("hopper elsewhere", forward({4, 4096, 4096, 16, 16, 128, 128}, other, plain),
        to_forward + "forward_bf16_128_plain rows_4_4");
  other.has_hopper = true;
  other.compute = ComputeType::float32;
  check("hopper, split", forward({4, 4096, 4096, 16, 16, 128, 128}, other, plain),
        "sample convert_split convert_again_split forward_split_128_plain rows_4_4");
  for (const ComputeType type : {ComputeType::float16, ComputeType::tensorfloat32}) {
    other.compute = type;
    check("hopper f16", forward({4, 4096, 4096, 16, 16, 128, 128}, other, plain),
          "sample convert_f16 convert_again_f16 hopper_forward_f16_128 rows_4_4");
  }
  // What a call is said to take does not depend on the device.
  for (const int64_t length : {1, 100, 1000, 5000}) {
    for (const int64_t size : {64, 128, 256}) {
      CallKind mma = bf16;
      mma.family = Family::mma_sync;
      const Shape shape = {2, length, 3000, 4, 2, size, size};
      expect(forward(shape, bf16, plain).workspace_bytes <= forward(shape, mma, plain).workspace_bytes &&
                 backward(shape, bf16, plain).workspace_bytes <= backward(shape, mma, plain).workspace_bytes,
             "hopper takes no more memory");
    }
  }
  // What is not deterministic: asked for, all of q's and k's or v's gradients, plain, 16 bits, a kernel for the head size.
  const auto any_order = [&](const Shape& shape, const CallKind& call, const Tensors& tensors, const Gradients& wanted) {
    Problem problem = problem_of(shape);
    problem.deterministic = false;
    return make_backward_plan(problem, tensors, {}, wanted, call, 132);
  };
  const Plan added = any_order({4, 4096, 4096, 16, 4, 128, 128}, bf16, plain, gradients);
  check("added", added, to_backward + "hopper_added_gradient_bf16_128 hopper_query_sums_bf16_128 exact_d_query exact_d_key");
  expect(added.params.d_q_sums && added.launches[3].x == 132 && added.launches[4].x == 4 * 16 * 64, "added: grids");
  check("added 64", any_order({4, 4096, 4096, 16, 16, 64, 40}, bf16, plain, gradients),
        to_backward + "hopper_added_gradient_bf16_64 hopper_query_sums_bf16_64 exact_d_query exact_d_key");
  check("added, 256", any_order({4, 4096, 4096, 16, 16, 256, 256}, bf16, plain, gradients),
        to_backward + "d_value_bf16_256_plain d_key_bf16_256_plain d_query_bf16_256_plain exact_d_query exact_d_key");
  check("added, mask", any_order({4, 4096, 4096, 16, 16, 128, 128}, bf16, masked, gradients),
        to_backward + "d_key_value_bf16_128_general d_query_bf16_128_general exact_d_query exact_d_key");
  Gradients only_q, not_q;
  only_q.d_q = not_q.d_v = data;
  check("added, only dQ", any_order({4, 4096, 4096, 16, 16, 128, 128}, bf16, plain, only_q),
        to_backward + "hopper_query_gradient_bf16_128 exact_d_query");
  check("added, not dQ", any_order({4, 4096, 4096, 16, 16, 128, 128}, bf16, plain, not_q),
        to_backward + "hopper_key_gradient_bf16_128 exact_d_key");
  CallKind elsewhere = bf16;
  elsewhere.has_hopper = false;
  const Plan not_added = any_order({4, 4096, 4096, 16, 4, 128, 128}, elsewhere, plain, gradients);
  check("added, elsewhere", not_added,
        to_backward + "d_key_value_bf16_128_plain d_query_bf16_128_plain exact_d_query exact_d_key");
  expect(!not_added.params.d_q_sums && not_added.workspace_bytes == added.workspace_bytes, "added: memory");
  CallKind rounded = bf16;
  rounded.compute = ComputeType::tensorfloat32;
  check("added, tensorfloat32", any_order({4, 4096, 4096, 16, 4, 128, 128}, rounded, plain, gradients),
        "sample convert_f16 convert_again_f16 row_statistics hopper_added_gradient_f16_128 hopper_query_sums_f16_128 "
        "exact_d_query exact_d_key");
  elsewhere.compute = ComputeType::float32;
  expect(any_order({4, 512, 512, 16, 4, 128, 128}, elsewhere, plain, gradients).workspace_bytes ==
             backward({4, 512, 512, 16, 4, 128, 128}, elsewhere, plain).workspace_bytes, "added: float32");
  // Numbers of rows that only fit 64 bits: 2^20 rows of 2^11 heads.
  expect(backward({1, 1 << 20, 1 << 20, 1 << 11, 1, 64, 64}, bf16, plain).launches[3].takes == Launch::Takes::params,
         "hopper: rows");
}

}  // namespace

int main() {
  check_hopper();
  std::set<std::string> names;
  for (const BuiltKernel& kernel : built_kernels()) {
    expect(names.insert(kernel.name).second, kernel.name + " is listed once");
    expect(kernel.shared_bytes <= (kernel.name.compare(0, 6, "hopper") == 0 ? 227 : 99) * 1024,
           kernel.name + ": shared memory of sm_90 or sm_86");
  }
  float data[1] = {};
  uint8_t mask[1] = {};
  Tensors plain, masked;
  masked.mask = mask;
  CallKind call;
  call.compute = ComputeType::bfloat16;
  check("long", make_forward_plan(problem_of({4, 4096, 4096, 16, 16, 128, 128}), plain, {}, call, 132),
        "locate convert_bf16 forward_bf16_128_plain rows_4_4");
  check("mask", make_forward_plan(problem_of({4, 4096, 4096, 16, 16, 40, 64}), masked, {}, call, 132),
        "locate convert_bf16 forward_bf16_64_general rows_2_4");
  call.compute = ComputeType::float32;
  check("split", make_forward_plan(problem_of({1, 100, 8192, 1, 1, 129, 64}), plain, {}, call, 132),
        "sample convert_split convert_again_split forward_split_256_plain merge "
        "rows_8_4");
  call.compute = ComputeType::float32;
  const Plan decode = make_forward_plan(problem_of({1, 1, 32768, 32, 8, 128, 128}), plain, {}, call, 132);
  check("decode", decode, "rows_4_4 merge");
  expect(decode.params.units == 8 && decode.params.heads_per_unit == 4, "decode: heads of a key head together");
  expect(decode.launches[0].x > 3 * 132 - 8 && decode.launches[0].x <= 3 * 132, "decode: one wave of blocks");
  Plan together = make_forward_plan(problem_of({2, 20, 4096, 32, 8, 128, 128}), plain, {}, call, 132);
  expect(together.params.units == 8 && together.params.unit_rows == 80, "rows of a key head together");
  check_workspace(together, "together");
  Gradients gradients;
  gradients.d_q = gradients.d_k = gradients.d_v = data;
  call.is_backward = true;
  call.compute = ComputeType::float16;
  check("backward", make_backward_plan(problem_of({2, 1000, 3000, 8, 2, 128, 128}), plain, {}, gradients, call, 132),
        "sample convert_f16 convert_again_f16 row_statistics "
        "d_key_value_f16_128_plain d_query_f16_128_plain exact_d_query exact_d_key");
  call.compute = ComputeType::float32;
  check("backward, wide",
        make_backward_plan(problem_of({2, 100, 300, 8, 2, 128, 128}), plain, {}, gradients, call, 132),
        "sample convert_split convert_again_split row_statistics "
        "d_value_split_128_plain d_key_split_128_plain d_query_split_128_plain exact_d_query exact_d_key");
  gradients.d_q = nullptr;
  gradients.d_bias = data;
  Problem biased = problem_of({2, 100, 300, 8, 2, 64, 64});
  Tensors with_bias;
  with_bias.bias = data;
  biased.bias = {0, 30000, 300, 1};
  biased.bias_shape[1] = 8;
  biased.bias_shape[2] = 100;
  biased.bias_shape[3] = 300;
  const Plan d_bias = make_backward_plan(biased, with_bias, {}, gradients, call, 132);
  check("dBias", d_bias,
        "sample convert_split convert_again_split row_statistics "
        "d_key_value_split_64_general d_bias_split_64 exact_d_bias exact_d_key");
  for (const int64_t queries : {1, 7, 64, 129, 5000}) {
    for (const int64_t keys : {1, 255, 700, 100000}) {
      for (const int multiprocessors : {1, 16, 132}) {
        Problem packed = problem_of({3, queries, keys, 4, 2, 64, 64});
        packed.packed_sequences = true;
        packed.query_rows *= 2;
        packed.key_rows *= 2;
        check_workspace(make_forward_plan(packed, plain, {}, {}, multiprocessors), "packed");
        check_workspace(make_backward_plan(packed, plain, {}, gradients, {}, multiprocessors), "packed");
      }
    }
  }
  expect(!make_forward_plan(problem_of({1, 1, 1, 1, 1, 257, 1}), plain, {}, {}, 1).problem.empty(), "head size");
  expect(!make_forward_plan(problem_of({70000, 1, 1, 1, 1, 64, 64}), plain, {}, {}, 1).problem.empty(), "batches");
  std::printf("plan: %zu kernels, %d failed\n", names.size(), failures);
  return failures > 0;
}
