// host_call_program FILE: runs the calls of dump_cases.ts through kernels/cuda/host_call.cc on the fake libcuda, the
// kernels being those for CPUs, which work in the fake's device memory; with all memory and with little, so that calls
// are cut into pieces. What is not ordered by events, or copied wrongly, shows in the results. Then failures. Writes
// its counts as one line of JSON.
#include <algorithm>
#include <cstdio>
#include <thread>

#include "cpu_kernels.h"
#include "addon/described_call.h"
#include "sanitizers/call_runs.h"

namespace flash_attention {
namespace {

struct Counts {
  int calls = 0, runs = 0, cut = 0, checks = 0, failures = 0;
  int64_t pieces = 0;
};

Counts counts;

void expect(bool ok, const std::string& what) {
  counts.checks++;
  if (!ok) {
    counts.failures++;
    std::printf("FAILED  %s\n", what.c_str());
  }
}

/** Memory that a call may have: what it takes whole; half of that, where any piece fits; as little as any piece fits. */
enum class Room { all, half, least };

int64_t least_limit(const HostCall& call) {
  const PieceCall least = piece_call(call, {0, 1, 0, 1});
  int64_t limit = 2 * least.device_bytes + WORKSPACE;
  while (plan_pieces(call, limit, [](const HostCall&) { return WORKSPACE; }).pieces.empty()) {
    limit += limit / 4;
  }
  return limit;
}

std::string run_on_fake(Device& device, const HostCall& call, Room room) {
  HostCallOptions options;
  options.staging_bytes = room == Room::least ? 4096 : 65536;
  if (call.problem.batch == 0 || call.problem.query_heads == 0) {
    return "";
  }
  const int64_t all = piece_call(call, {0, call.problem.batch, 0, call.problem.key_heads}).device_bytes + WORKSPACE;
  const int64_t least = least_limit(call);
  options.limit = room == Room::all ? all : room == Room::half ? std::max(all / 2, least) : least;
  HostCallReport report;
  fake().configure("");
  const CudaStatus status = run_host_call(device, call, cpu_kernels(), options, &report);
  counts.pieces += report.pieces;
  counts.cut += report.pieces > 1;
  const std::string violations = fake().violations();
  return !status.ok()                                                        ? status.text :
         !violations.empty()                                                 ? violations :
         fake().used() != 0                                                  ? "device memory is not given back" :
         fake().contexts() != 0                                              ? "a context is left current" :
         static_cast<int64_t>(fake().peak()) > options.limit + 4 * WORKSPACE ? "more device memory than it may have" :
                                                                               "";
}

void run_calls(Device& device, const char* path, Room room) {
  CallFile file(path);
  Call call;
  Run before;
  while (file.next(&call)) {
    counts.calls += room == Room::all;
    if (call.name.find("append") != std::string::npos) {
      continue;
    }
    Run made = run_with(call, &before, [&](const Description& d, const Memory& memory, const Memory& results) {
      return d.kind == CallKind::append ? std::string() : run_on_fake(device, host_call(d, memory, results), room);
    });
    counts.runs++;
    const std::string error = judge(call, made);
    expect(error.empty(), call.name + ", memory " + std::to_string(static_cast<int>(room)) + ": " + error);
    before = std::move(made);
  }
}

/** A small call with several batches and heads, and what it should give. */
class Sample {
 public:
  Sample() {
    Problem& p = call.problem;
    p.batch = 3;
    p.query_length = p.query_rows = 70;
    p.key_length = p.key_rows = 90;
    p.query_heads = 4;
    p.key_heads = 2;
    p.head_size = 16;
    p.value_size = 8;
    p.key_batches = p.batch;
    p.softmax_scale = 0.25;
    p.dropout_p = 0.25;
    p.seed_low = 7;
    p.q = {0, 70 * 64, 64, 16};
    p.k = {0, 90 * 32, 32, 16};
    p.v = {0, 90 * 16, 16, 8};
    p.output = {0, 70 * 32, 32, 8};
    p.lse_batch = 4 * 70;
    p.lse_head = 70;
    q = random(3 * 70 * 64);
    k = random(3 * 90 * 32);
    v = random(3 * 90 * 16);
    call.tensors.q = q.data();
    call.tensors.k = k.data();
    call.tensors.v = v.data();
    for (std::vector<float>* result : {&output, &expected}) {
      result->assign(3 * 70 * 32, -1.f);
    }
    lse.resize(3 * 4 * 70);
    tail.resize(lse.size());
    call.outputs = {output.data(), lse.data(), tail.data()};
    HeapWorkspace workspace;
    attention_forward(p, call.tensors, {expected.data(), lse.data(), tail.data()}, workspace, 1);
  }

  /** Of which the parts of a call, with dropout, must give what the whole gives. */
  bool is_right() const {
    for (size_t n = 0; n < output.size(); n++) {
      if (!(std::fabs(output[n] - expected[n]) < 1e-5f)) {
        return false;
      }
    }
    return true;
  }

  HostCall call;
  std::vector<float> q, k, v, output, expected, lse, tail;

 private:
  std::vector<float> random(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) {
      state_ = state_ * 1664525u + 1013904223u;
      value = static_cast<float>(state_ >> 8) / 8388608.f - 1;
    }
    return values;
  }

  uint32_t state_ = 1;
};

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/** Any call of the driver may fail, at any time: an error comes back, and nothing is lost. */
void run_failures(Device& device) {
  Sample sample;
  HostCallOptions options;
  options.staging_bytes = 4096;
  options.limit = least_limit(sample.call);
  fake().configure("");
  expect(run_host_call(device, sample.call, cpu_kernels(), options).ok() && sample.is_right(), "the sample");
  release_staging();
  for (const char* name :
       {"cuCtxPushCurrent", "cuMemGetInfo", "cuStreamCreate", "cuEventCreate", "cuMemHostAlloc",
        "cuMemAllocFromPoolAsync", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuEventSynchronize",
        "cuStreamWaitEvent", "cuStreamSynchronize"}) {
    for (int at : {1, 2, 7}) {
      const std::string what = std::string(name) + " fails at call " + std::to_string(at);
      fake().configure(("fail=" + std::string(name) + ":1@" + std::to_string(at)).c_str());
      const CudaStatus status = run_host_call(device, sample.call, cpu_kernels(), options);
      const std::string log = fake().log();
      size_t calls = 0;
      for (size_t place = 0; (place = log.find(std::string(name) + "\n", place)) != std::string::npos; place++) {
        calls++;
      }
      const bool has_failed = calls >= static_cast<size_t>(at);
      expect(status.ok() != has_failed, what + ": " + (status.ok() ? "no error" : status.text));
      expect(!has_failed || contains(status.text, name), what + ": " + status.text);
      expect(std::string(fake().violations()).empty() && fake().contexts() == 0, what + fake().violations());
      expect(fake().used() == 0, what + ": device memory is not given back");
      fake().configure("");
      release_staging();
      expect(fake().host_blocks() == 0, what + ": pinned memory is not given back");
    }
  }
}

void run_memory(Device& device) {
  Sample sample;
  const PieceCall whole = piece_call(sample.call, {0, 3, 0, 2});
  const PieceCall least = piece_call(sample.call, {0, 1, 0, 1});
  HostCallOptions options;
  HostCallReport report;
  // Fewer bytes than the driver says are free: the call begins again with less.
  options.limit = whole.device_bytes + WORKSPACE;
  fake().configure(("memory=" + std::to_string(whole.device_bytes / 2 + 2 * WORKSPACE)).c_str());
  CudaStatus status = run_host_call(device, sample.call, cpu_kernels(), options, &report);
  expect(status.ok() && report.attempts > 1 && report.pieces > 1 && sample.is_right(),
         "less memory than there seemed to be: " + status.text);
  expect(fake().used() == 0, "memory after another attempt");
  options.limit = least.device_bytes / 2;
  status = run_host_call(device, sample.call, cpu_kernels(), options);
  expect(status.failure == CudaFailure::out_of_memory && contains(status.text, "a key head of this call takes"),
         "no piece fits: " + status.text);
}

/** The device is lost: an error at once, and ever after; or the CPU. Comes last. */
void run_loss(Device& device) {
  Sample sample;
  HostCallOptions options;
  options.limit = least_limit(sample.call);
  HeapWorkspace workspace;
  std::string used_cpu;
  fake().configure("fail=cuMemcpyHtoDAsync:700@2");
  CudaStatus status = run_host_call(device, sample.call, cpu_kernels(), options);
  expect(status.failure == CudaFailure::device_lost && contains(status.text, "CUDA_ERROR_ILLEGAL_ADDRESS"),
         "a lost device: " + status.text);
  fake().configure("");
  const auto kernels = [](const Device&) { return cpu_kernels(); };
  std::string error = run_host_call_or_cpu(sample.call, kernels, options, OnCudaFailure::error, workspace, 1);
  expect(contains(error, "was lost to this process"), "after that: " + error);
  sample.output.assign(sample.output.size(), -1.f);
  error = run_host_call_or_cpu(sample.call, kernels, options, OnCudaFailure::cpu, workspace, 1, &used_cpu);
  expect(error.empty() && contains(used_cpu, "was lost") && sample.is_right(), "the CPU instead: " + error);
  release_staging();
}

/** Sizes alone: nothing is copied, so no memory stands behind them. */
void run_plans() {
  HostCall call;
  Problem& p = call.problem;
  p.batch = 4;
  p.query_heads = p.key_heads = 16;
  p.query_length = p.query_rows = p.key_length = p.key_rows = 4096;
  p.head_size = p.value_size = 128;
  p.key_batches = 4;
  float element = 0;
  call.tensors.q = call.tensors.k = call.tensors.v = &element;
  call.outputs = {&element, &element, &element};
  const auto none = [](const HostCall&) { return int64_t{0}; };
  const int64_t all = piece_call(call, {0, 4, 0, 16}).device_bytes;
  expect(all == int64_t{4} * 16 * 4096 * (4 * 128 + 2) * 4, "the bytes of a call: " + std::to_string(all));
  PiecePlan plan = plan_pieces(call, 2 * all, none);
  expect(plan.pieces.size() == 8 && plan.needed_bytes == all / 4, "pieces for overlap: by batch, then by head");
  plan = plan_pieces(call, all / 10, none);
  expect(plan.pieces.size() == 32 && plan.needed_bytes <= all / 10, "pieces for want of memory");
  plan = plan_pieces(call, all / 64, none);
  expect(plan.pieces.empty() && plan.needed_bytes == all / 32, "no room for two of the smallest pieces");
  p.key_batches = 5;
  plan = plan_pieces(call, 2 * all, none);
  expect(plan.pieces.size() >= 8 && plan.pieces[0].batches == 4, "caches are not cut by batch");
  const auto more = [all](const HostCall& part) { return part.problem.batch == 4 ? int64_t{0} : all; };
  p.key_batches = 4;
  plan = plan_pieces(call, all + all / 2, more);
  expect(plan.pieces.size() == 1, "one piece where more do not fit");
}

/** Calls from several threads at a time. */
void run_together(Device& device) {
  std::vector<std::thread> threads;
  fake().configure("");
  for (int n = 0; n < 3; n++) {
    threads.emplace_back([&device] {
      Sample sample;
      HostCallOptions options;
      options.staging_bytes = 8192;
      options.limit = least_limit(sample.call);
      for (int round = 0; round < 5; round++) {
        sample.output.assign(sample.output.size(), -1.f);
        const CudaStatus status = run_host_call(device, sample.call, cpu_kernels(), options);
        static std::mutex mutex;
        std::lock_guard<std::mutex> lock(mutex);
        expect(status.ok() && sample.is_right(), "together with others: " + status.text);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  expect(std::string(fake().violations()).empty(), fake().violations());
}

int main_of(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  if (count != 2) {
    std::fprintf(stderr, "host_call_program FILE\n");
    return 2;
  }
  Device* device = nullptr;
  const CudaStatus status = selected_device(&device);
  expect(status.ok(), status.text);
  if (status.ok()) {
    for (Room room : {Room::all, Room::half, Room::least}) {
      run_calls(*device, arguments[1], room);
    }
    run_plans();
    run_failures(*device);
    run_memory(*device);
    run_together(*device);
    run_loss(*device);
  }
  std::printf("{\"calls\": %d, \"runs\": %d, \"cut\": %d, \"pieces\": %lld, \"checks\": %d, \"failures\": %d}\n",
              counts.calls, counts.runs, counts.cut, static_cast<long long>(counts.pieces), counts.checks,
              counts.failures);
  return counts.failures > 0 || counts.calls == 0 ? 1 : 0;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
