// One program that says whether the Hopper kernels are right and how fast they are, on a machine with an H100 or H200;
// run.sh beside this builds and runs it.
//
//   try check    primitives, then every kernel on small problems, whole, against float64 on the same 16-bit operands
//   try time     TFLOP/s of every kernel on large problems, each also checked at sampled rows and keys
//
// Work is done by processes of their own, so that a kernel that hangs or breaks its context costs no other one. With
// HOPPER_RESULTS, a file's name, all that they said is kept there. HOPPER_BACKWARD=1 leaves the forward pass out.
#include <sys/wait.h>
#include <fcntl.h>
#include <signal.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>

#include "device.cuh"
#include "candidates.cuh"
#include "large.cuh"
#include "primitives.cuh"

namespace {

/** Not those that only follow others, nor the forward pass where that is not asked for. */
std::vector<Kernel> all_kernels() {
  std::vector<Kernel> all;
  for (const std::vector<Kernel>* list : {&SHIPPED, &CANDIDATES}) {
    for (const Kernel& kernel : *list) {
      if (kernel.pass != Pass::sums && !(std::getenv("HOPPER_BACKWARD") && kernel.pass == Pass::forward)) {
        all.push_back(kernel);
      }
    }
  }
  return all;
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ---- What the processes do ------------------------------------------------------------------------------------------

/** Lines "@ shape" before each, then "+" or "-" and what was found. */
int check_one(const Kernel& kernel, size_t first_shape) {
  for (size_t i = first_shape; i < SHAPES.size(); i++) {
    if (dp_of(SHAPES[i]) == kernel.dp) {
      std::printf("@ %zu\n", i);
      std::fflush(stdout);
      const Verdict verdict = check_kernel(kernel, SHAPES[i], static_cast<uint32_t>(i + 1));
      std::printf("%c %s |%s\n", verdict.holds() ? '+' : '-', words_of(SHAPES[i]).c_str(), verdict.words.c_str());
      std::fflush(stdout);
    }
  }
  return 0;
}

/** The same bits twice, of a problem with more work than blocks. */
int check_repeats() {
  Setup setup;
  fill(setup, {2, 16, 8, 1000, 1000, 128, 128, -1, 0, true, false, false, 1}, true, 9, true);
  const cuda::Params& call = setup.call;
  const size_t rows = setup.shape.query_heads * call.query_place.rows;
  const std::vector<float> lse(rows, 8.f), delta(rows, 0.5f);
  device_write(call.lse_high, lse.data(), rows * 4);
  device_write(call.delta, delta.data(), rows * 4);
  std::vector<float> first[4], again[4];
  for (std::vector<float>* to : {first, again}) {
    for (Pass pass : {Pass::forward, Pass::keys, Pass::queries}) {
      const Kernel& kernel = find_shipped(pass, 128, true);
      device_launch(launch_params(setup, kernel), kernel);
    }
    to[0] = download(call.output, setup.output_count);
    to[1] = download(call.d_q, setup.q_count);
    to[2] = download(call.d_k, setup.k_count);
    to[3] = download(call.d_v, setup.v_count);
  }
  const char* names[] = {"O", "dQ", "dK", "dV"};
  for (int i = 0; i < 4; i++) {
    const bool same = std::memcmp(first[i].data(), again[i].data(), first[i].size() * 4) == 0;
    std::printf("%c %s %s\n", same ? '+' : '-', names[i], same ? "same" : "DIFFERENT");
  }
  return 0;
}

/** Milliseconds of a run: the median of batches of at least 12 ms, after `warm_ms` of the same work. */
double measured_ms(double warm_ms, const char* name, const std::function<void()>& run) {
  cudaEvent_t before, after;
  OK(cudaEventCreate(&before));
  OK(cudaEventCreate(&after));
  run();
  await_device(name);
  const auto batch_ms = [&](int count) {
    OK(cudaEventRecord(before));
    for (int i = 0; i < count; i++) {
      run();
    }
    OK(cudaEventRecord(after));
    OK(cudaEventSynchronize(after));
    float ms;
    OK(cudaEventElapsedTime(&ms, before, after));
    return static_cast<double>(ms);
  };
  double spent = 0, last = 0;
  int count = 1;
  while (spent < warm_ms) {
    last = batch_ms(count);
    spent += last;
    count = std::max(1, static_cast<int>(12 * count / std::max(last, 0.01) + 0.9));
  }
  std::vector<double> times;
  for (int i = 0; i < 7; i++) {
    times.push_back(batch_ms(count) / count);
  }
  OK(cudaEventDestroy(before));
  OK(cudaEventDestroy(after));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/** Of two products, in which a forward pass is counted. */
double share_of(Pass pass) {
  return pass == Pass::forward ? 1 : pass == Pass::keys ? 2 : pass == Pass::queries ? 1.5 : 2.5;
}

/** Lines "@ kernel" before each, then "= kernel ms TFLOP/s error". */
int time_one(int d, int n, bool causal, bool is_bfloat16, int first) {
  const std::vector<Kernel> all = all_kernels();
  const Large large(n, d, causal, is_bfloat16);
  const Setup& setup = large.setup;
  const cuda::Params& call = setup.call;
  const size_t output_bytes = setup.output_count * 4;
  bool is_first = true;
  for (int index = 0; index < static_cast<int>(all.size()); index++) {
    const Kernel& kernel = all[index];
    if (kernel.dp != d || kernel.is_bfloat16 != is_bfloat16) {
      continue;
    }
    const HopperParams params = launch_params(setup, kernel);
    if (index < first) {
      continue;
    }
    std::printf("@ %d\n", index);
    std::fflush(stdout);
    for (float* poisoned : {kernel.pass == Pass::forward ? call.output : call.d_q, call.d_k, call.d_v}) {
      OK(cudaMemset(poisoned, 0xff, output_bytes));
    }
    allow_bytes(kernel);
    const Kernel* const sums = kernel.pass == Pass::all ? &find_shipped(Pass::sums, d, is_bfloat16) : nullptr;
    const HopperParams sums_params = sums ? launch_params(setup, *sums) : HopperParams{};
    const auto run = [&] {
      if (sums) {
        OK(cudaMemsetAsync(call.d_q_sums, 0, output_bytes));
      }
      start_kernel(params, kernel);
      if (sums) {
        start_kernel(sums_params, *sums);
      }
    };
    run();
    await_device(kernel.name);
    const double error = sampled_error(large, kernel.pass);
    const double ms = measured_ms(is_first ? 300 : 150, kernel.name, run);
    is_first = false;
    std::printf("= %d %.5f %.1f %.1e\n", index, ms, large.flops * share_of(kernel.pass) / ms * 1e-9, error);
    std::fflush(stdout);
  }
  return 0;
}

// ---- The processes --------------------------------------------------------------------------------------------------

struct Ended {
  std::string said;
  bool is_done;
  std::string how;
};

struct Process {
  pid_t pid;
  std::string file;
  double until;
};

Process start(const std::vector<std::string>& words, double limit_s) {
  char name[] = "/tmp/hopper_try_XXXXXX";
  const int file = mkstemp(name);
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(file, 1);
    dup2(file, 2);
    std::vector<char*> list = {const_cast<char*>("try")};
    for (const std::string& word : words) {
      list.push_back(const_cast<char*>(word.c_str()));
    }
    list.push_back(nullptr);
    execv("/proc/self/exe", list.data());
    _exit(127);
  }
  close(file);
  return {pid, name, seconds() + limit_s};
}

/** Whether it has ended; one past its time is killed. */
bool has_ended(const Process& process, Ended& ended) {
  int status = 0;
  const bool is_late = seconds() > process.until;
  if (is_late) {
    kill(process.pid, SIGKILL);
  }
  if (waitpid(process.pid, &status, is_late ? 0 : WNOHANG) == 0) {
    return false;
  }
  ended.is_done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  ended.how = is_late ? "killed at its time limit" : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                                                          : "exit " + std::to_string(WEXITSTATUS(status));
  ended.said.clear();
  if (FILE* file = std::fopen(process.file.c_str(), "r")) {
    char part[4096];
    for (size_t count; (count = std::fread(part, 1, sizeof part, file)) > 0;) {
      ended.said.append(part, count);
    }
    std::fclose(file);
  }
  unlink(process.file.c_str());
  if (const char* results = std::getenv("HOPPER_RESULTS")) {
    if (FILE* file = std::fopen(results, "a")) {
      std::fputs(ended.said.c_str(), file);
      std::fclose(file);
    }
  }
  return true;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

Ended run_alone(const std::vector<std::string>& words, double limit_s) {
  const Process process = start(words, limit_s);
  Ended ended;
  while (!has_ended(process, ended)) {
    usleep(2000);
  }
  return ended;
}

/** The number of the last line "@ number", or -1. */
int last_started(const std::vector<std::string>& lines) {
  int last = -1;
  for (const std::string& line : lines) {
    if (line[0] == '@') {
      last = std::atoi(line.c_str() + 1);
    }
  }
  return last;
}

/** All small problems of all kernels, six processes at a time; says little of kernels that are right. */
int check_all() {
  const Ended products = run_alone({"one_products"}, 60);
  std::printf("products: %s\n%s", products.is_done ? "right" : products.how.c_str(), products.said.c_str());
  int failures = !products.is_done;
  const std::vector<Kernel> all = all_kernels();
  struct Task {
    Process process;
    int restarts = 0;
    std::vector<std::string> wrong;
    int right = 0;
    bool is_over = false, has_started = false;
  };
  std::vector<Task> tasks(all.size());
  const auto restart = [&](size_t index, int shape) {
    tasks[index].process = start({"one_check", std::to_string(index), std::to_string(shape)}, 60);
    tasks[index].has_started = true;
  };
  const double until = seconds() + 150;
  for (bool goes_on = true; goes_on;) {
    goes_on = false;
    int running = 0;
    for (const Task& task : tasks) {
      running += task.has_started && !task.is_over;
    }
    for (size_t i = 0; i < all.size(); i++) {
      Task& task = tasks[i];
      if (!task.has_started && running < 6 && seconds() < until) {
        restart(i, 0);
        running++;
      }
      Ended ended;
      if (task.has_started && !task.is_over && has_ended(task.process, ended)) {
        const std::vector<std::string> lines = lines_of(ended.said);
        for (const std::string& line : lines) {
          task.right += line[0] == '+';
          if (line[0] != '+' && line[0] != '@') {
            task.wrong.push_back(line);
          }
        }
        task.is_over = ended.is_done || task.restarts == 3;
        if (!ended.is_done) {
          const int shape = last_started(lines);
          task.wrong.push_back(shape < 0 ? "! did not start: " + ended.how
                                         : "! " + ended.how + " in " + words_of(SHAPES[shape]));
          if (!task.is_over && shape >= 0) {
            task.restarts++;
            restart(i, shape + 1);
          } else {
            task.is_over = true;
          }
        }
      }
      goes_on = goes_on || (task.has_started ? !task.is_over : seconds() < until);
    }
    usleep(2000);
  }
  int clean = 0;
  size_t details = 36;
  for (size_t i = 0; i < all.size(); i++) {
    const Task& task = tasks[i];
    if (!task.has_started || !task.wrong.empty()) {
      failures++;
      std::printf("%s: %d right, %zu wrong%s\n", all[i].name, task.right, task.wrong.size(),
                  task.has_started ? "" : ", no time left");
      for (size_t line = 0; line < task.wrong.size() && line < (i < SHIPPED.size() ? 4 : 1) && details > 0;
           line++, details--) {
        std::printf("    %.330s\n", task.wrong[line].c_str());
      }
    } else {
      clean++;
    }
  }
  std::printf("%d of %zu kernels right in all their problems\n", clean, all.size());
  const Ended repeats = run_alone({"one_repeats"}, 30);
  std::printf("repeats (%s):\n%s", repeats.how.c_str(), repeats.said.c_str());
  return failures > 0;
}

struct Timed {
  double ms, rate, error;
};

/** Tables of TFLOP/s: * the best of a shape, ! wrong. */
void print_times(const std::map<std::pair<int, int>, Timed>& times, int d, bool is_bfloat16) {
  const std::vector<Kernel> all = all_kernels();
  const char* passes[] = {"forward", "dK dV (4 products)", "dQ (3)", "dK dV dQ (5)"};
  for (Pass pass : {Pass::forward, Pass::keys, Pass::queries, Pass::all}) {
    double best[6] = {};
    const auto is_right = [&](const Timed& timed) { return timed.error <= (is_bfloat16 ? 1.6e-2 : 4e-3); };
    bool has_any = false;
    for (int index = 0; index < static_cast<int>(all.size()); index++) {
      for (int column = 0; column < 6; column++) {
        const auto found = times.find({index, column});
        if (all[index].pass == pass && found != times.end()) {
          has_any = true;
          best[column] = is_right(found->second) ? std::max(best[column], found->second.rate) : best[column];
        }
      }
    }
    if (!has_any) {
      continue;
    }
    std::printf("%-28s   1k  1k-c    4k  4k-c   16k 16k-c  worst error\n",
                (std::string(is_bfloat16 ? "bf16 D" : "f16 D") + std::to_string(d) + " " + passes[static_cast<int>(pass)])
                    .c_str());
    for (int index = 0; index < static_cast<int>(all.size()); index++) {
      double worst = 0;
      std::string row;
      for (int column = 0; column < 6; column++) {
        const auto found = times.find({index, column});
        char cell[32] = "     -";
        if (found != times.end()) {
          const Timed& timed = found->second;
          worst = timed.error <= worst ? worst : timed.error;
          std::snprintf(cell, sizeof cell, "%5.0f%c", timed.rate,
                        !is_right(timed) ? '!' : timed.rate == best[column] ? '*' : ' ');
        }
        row += cell;
      }
      if (all[index].pass == pass && all[index].dp == d && all[index].is_bfloat16 == is_bfloat16) {
        std::printf("%-28s%s  %.0e\n", all[index].name, row.c_str(), worst);
      }
    }
  }
  // As a backward pass is counted: five products, by the best pair.
  std::string row;
  for (int column = 0; column < 6; column++) {
    double keys = 1e30, queries = 1e30, flops = 0;
    for (const auto& entry : times) {
      if (entry.first.second == column) {
        const Timed& timed = entry.second;
        const Pass pass = all[entry.first.first].pass;
        keys = pass == Pass::keys ? std::min(keys, timed.ms) : keys;
        queries = pass == Pass::queries ? std::min(queries, timed.ms) : queries;
        flops = timed.rate * timed.ms / share_of(pass);
      }
    }
    char cell[32];
    std::snprintf(cell, sizeof cell, "%5.0f ", 2.5 * flops / (keys + queries));
    row += cell;
  }
  std::printf("%-28s%s\n", "backward, best pair, as 5", row.c_str());
}

int time_all() {
  const std::vector<Kernel> all = all_kernels();
  const double until = seconds() + 215;
  for (bool is_bfloat16 : {true, false}) {
    for (int d : {128, 64, 256}) {
      if (d == 256 && std::getenv("HOPPER_BACKWARD")) {
        continue;
      }
      std::map<std::pair<int, int>, Timed> times;
      std::set<std::string> trouble;
      for (int column : {2, 3, 4, 5, 0, 1}) {
        const int lengths[] = {1024, 4096, 16384};
        if ((d == 256 || !is_bfloat16) && column != 2 && column != 3) {
          continue;
        }
        for (int first = 0, tries = 0; first >= 0 && tries < 6 && seconds() < until; tries++) {
          const Ended ended = run_alone({"one_time", std::to_string(d), std::to_string(lengths[column / 2]),
                                         std::to_string(column % 2), std::to_string(is_bfloat16), std::to_string(first)},
                                        60);
          const std::vector<std::string> lines = lines_of(ended.said);
          for (const std::string& line : lines) {
            int index;
            Timed timed;
            if (std::sscanf(line.c_str(), "= %d %lf %lf %lf", &index, &timed.ms, &timed.rate, &timed.error) == 4) {
              times[{index, column}] = timed;
            } else if (line[0] != '@') {
              trouble.insert(line);
            }
          }
          first = ended.is_done ? -1 : last_started(lines) + 1;
          if (first == 0) {
            trouble.insert("one_time did not start: " + ended.how);
            break;
          }
        }
      }
      print_times(times, d, is_bfloat16);
      for (const std::string& line : trouble) {
        std::printf("  %.200s\n", line.c_str());
      }
      std::fflush(stdout);
    }
  }
  std::printf(seconds() < until ? "all timed\n" : "NOT ALL TIMED: no time left\n");
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  const auto number = [&](int i) { return i < count ? std::atoi(words[i]) : 0; };
  if (what == "one_products") {
    return check_products() > 0;
  }
  if (what == "one_check") {
    return check_one(all_kernels()[number(2)], number(3));
  }
  if (what == "one_repeats") {
    return check_repeats();
  }
  if (what == "one_time") {
    return time_one(number(2), number(3), number(4), number(5), number(6));
  }
  return what == "check" ? check_all() : what == "time" ? time_all() : (std::puts("try check | try time"), 2);
}
