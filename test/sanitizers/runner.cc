// runner FILE [--sets=avx512,avx2,portable] [--threads=1,4] [--together=N]: runs the calls of dump_cases.ts on the
// native kernels, compares what comes out with what should, and sees to it that the number of threads changes no bit.
// A backward call gets the output and the LSE of the forward call before it as the same kernels made them: of large
// scores, the LSE is right only with the roundings that it was summed with.
// --together: afterwards the first N calls again, each from three threads at the same time. Built with sanitizers, it
// is they that find the rest. Writes its counts as one line of JSON.
#include <cstdlib>
#include <map>
#include <sstream>
#include <thread>

#include "addon/heap_workspace.h"
#include "addon/run_call.h"
#include "call_runs.h"

namespace flash_attention {
namespace {

struct Counts {
  int calls = 0, runs = 0, failures = 0;
};

/** By the kernels for CPUs. @param forward of the call before this one; or null, then as the file has it. */
Run run(const Call& call, const Run* forward) {
  return run_with(call, forward, [](const Description& description, const Memory& memory, const Memory& results) {
    if (description.kind == CallKind::append) {
      run_append(description, memory);
      return std::string();
    }
    HeapWorkspace workspace;
    return run_attention(description, memory, results, workspace);
  });
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
