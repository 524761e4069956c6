// runner FILE [--sets=avx512,avx2,portable] [--threads=1,4] [--together=N]: runs the calls of dump_cases.ts on the
// native kernels, compares what comes out with what should, and sees to it that the number of threads changes no bit.
// A backward call gets the output and the LSE of the forward call before it as the same kernels made them: of large
// scores, the LSE is right only with the roundings that it was summed with.
// --together: afterwards the first N calls again, each from three threads at the same time. Built with sanitizers, it
// is they that find the rest. Writes its counts as one line of JSON.
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>
#include <thread>

#include "addon/heap_workspace.h"
#include "addon/run_call.h"
#include "call_file.h"

namespace flash_attention {
namespace {

struct Counts {
  int calls = 0, runs = 0, failures = 0;
};

/** The memory of one run: what calls write is its own. */
struct Run {
  std::vector<CallTensor> tensors;
  std::vector<CallTensor> results;
  std::string error;
};

const CallTensor* find(const std::vector<CallTensor>& tensors, int64_t name) {
  for (const CallTensor& tensor : tensors) {
    if (tensor.name == name) {
      return &tensor;
    }
  }
  return nullptr;
}

/** @param forward of the call before this one; or null, then as the file has it. */
Run run(const Call& call, const Run* forward) {
  Run made;
  Description description;
  made.error = read_description(call.description.data(), call.description.size(), &description);
  if (!made.error.empty()) {
    return made;
  }
  Memory memory, results;
  int64_t elements[TENSOR_NAMES] = {};
  const bool is_append = description.kind == CallKind::append;
  for (const CallTensor& tensor : call.tensors) {
    const bool is_written = is_append && (tensor.name == K || tensor.name == V);
    const bool is_saved = tensor.name == OUTPUT || tensor.name == LSE || tensor.name == LSE_TAIL;
    const CallTensor* saved =
        forward && description.kind == CallKind::backward && is_saved ? find(forward->results, tensor.name) : nullptr;
    if (saved && saved->elements != tensor.elements) {
      made.error = "the call before it is not its forward call";
      return made;
    }
    made.tensors.push_back(
        is_written ? CallTensor{tensor.name, tensor.elements, std::make_shared<Block>(*tensor.block)} :
        saved      ? *saved :
                     tensor);
    memory.data[tensor.name] = made.tensors.back().block->data;
    elements[tensor.name] = tensor.elements;
  }
  made.error = check_elements(description, elements);
  if (!made.error.empty()) {
    return made;
  }
  if (is_append) {
    run_append(description, memory);
    for (const CallTensor& tensor : made.tensors) {
      if (tensor.name == K || tensor.name == V) {
        made.results.push_back(tensor);
      }
    }
    return made;
  }
  for (const CallResult& result : call.results) {
    made.results.push_back({result.name, result.elements, std::make_shared<Block>(result.elements * sizeof(float))});
    std::memset(made.results.back().block->data, 0x5a, result.elements * sizeof(float));
    results.data[result.name] = made.results.back().block->data;
  }
  HeapWorkspace workspace;
  made.error = run_attention(description, memory, results, workspace);
  return made;
}

/** Empty, or what is wrong. The rules are those of test/support/error_budget.ts. */
std::string compare(const CallResult& result, const float* actual) {
  for (size_t i = 0; i < result.expected.size(); i++) {
    const double expected = result.expected[i], received = actual[i];
    bool ok = std::fabs(received - expected) <= result.tolerance;
    if (!std::isfinite(expected)) {
      ok = result.specials == Specials::finite ? !std::isfinite(received) :
           std::isnan(expected)                ? std::isnan(received) :
                                                 received == expected;
    }
    if (!ok) {
      std::ostringstream text;
      text.precision(9);
      text << tensor_name(static_cast<int>(result.name)) << ", element " << i << " is " << received << ", expected "
           << expected << " ± " << result.tolerance;
      return text.str();
    }
  }
  return "";
}

std::string judge(const Call& call, const Run& made) {
  if (!made.error.empty()) {
    return made.error;
  }
  for (size_t n = 0; n < call.results.size(); n++) {
    if (made.results[n].name != call.results[n].name || made.results[n].elements != call.results[n].elements) {
      return "the results are not those of the call";
    }
    const std::string error = compare(call.results[n], static_cast<const float*>(made.results[n].block->data));
    if (!error.empty()) {
      return error;
    }
  }
  return "";
}

bool same_bits(const Run& a, const Run& b) {
  for (size_t n = 0; n < a.results.size(); n++) {
    const Block &x = *a.results[n].block, &y = *b.results[n].block;
    if (x.bytes != y.bytes || std::memcmp(x.data, y.data, x.bytes) != 0) {
      return false;
    }
  }
  return true;
}

std::vector<std::string> list_of(const std::string& text) {
  std::vector<std::string> list;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    list.push_back(item);
  }
  return list;
}

struct Plan {
  std::vector<std::string> sets = {"avx512", "avx2", "portable"};
  std::vector<int> threads = {1, 4};
  int together = 0;
};

void fail(Counts* counts, const std::string& what, const std::string& error) {
  counts->failures++;
  std::printf("FAILED  %s: %s\n", what.c_str(), error.c_str());
}

/** The run of the call before, by instruction set. */
using Before = std::map<std::string, Run>;

void run_all(const Plan& plan, const Call& call, Before* before, Counts* counts) {
  counts->calls++;
  for (const std::string& set : plan.sets) {
    if (!force_instruction_set(set.c_str())) {
      continue;
    }
    std::unique_ptr<Run> first;
    for (int number : plan.threads) {
      set_threads(number);
      Run made = run(call, before->count(set) ? &before->at(set) : nullptr);
      counts->runs++;
      const std::string what = call.name + ", " + set + ", " + std::to_string(number) + " threads";
      const std::string error = judge(call, made);
      if (!error.empty()) {
        fail(counts, what, error);
      }
      if (!first) {
        first = std::make_unique<Run>(std::move(made));
      } else if (!same_bits(*first, made)) {
        fail(counts, what, "other bits than with " + std::to_string(plan.threads[0]) + " threads");
      }
    }
    (*before)[set] = std::move(*first);
  }
}

/** The same call from several threads, as workers of Node make them. */
void run_together(const Call& call, Run* before, Counts* counts) {
  constexpr int CALLERS = 3;
  Run made[CALLERS];
  std::vector<std::thread> callers;
  for (Run& mine : made) {
    callers.emplace_back([&call, &mine, before] { mine = run(call, before); });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  for (const Run& mine : made) {
    counts->runs++;
    const std::string error = judge(call, mine);
    if (!error.empty() || !same_bits(mine, made[0])) {
      fail(counts, call.name + ", together", error.empty() ? "other bits than the others" : error);
    }
  }
  *before = std::move(made[0]);
}

int main_of(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);  // a sanitizer ends the process without warning
  Plan plan;
  const char* path = nullptr;
  for (int i = 1; i < count; i++) {
    const std::string argument = arguments[i];
    if (argument.rfind("--sets=", 0) == 0) {
      plan.sets = list_of(argument.substr(7));
    } else if (argument.rfind("--threads=", 0) == 0) {
      plan.threads.clear();
      for (const std::string& number : list_of(argument.substr(10))) {
        plan.threads.push_back(std::atoi(number.c_str()));
      }
    } else if (argument.rfind("--together=", 0) == 0) {
      plan.together = std::atoi(argument.c_str() + 11);
    } else {
      path = arguments[i];
    }
  }
  if (!path || plan.threads.empty()) {
    std::fprintf(stderr, "runner FILE [--sets=avx512,avx2,portable] [--threads=1,4] [--together=N]\n");
    return 2;
  }
  Counts counts;
  Call call;
  {
    CallFile file(path);
    Before before;
    while (file.next(&call)) {
      run_all(plan, call, &before, &counts);
    }
  }
  if (plan.together > 0) {
    set_threads(4);
    CallFile file(path);
    Run before;
    for (int n = 0; n < plan.together && file.next(&call); n++) {
      run_together(call, &before, &counts);
      if (n % 16 == 0) {
        stop_threads();  // they must start again
      }
    }
  }
  stop_threads();
  std::printf("{\"calls\": %d, \"runs\": %d, \"failures\": %d}\n", counts.calls, counts.runs, counts.failures);
  return counts.failures > 0 || counts.calls == 0 ? 1 : 0;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
