// runner [options] FILE…: calls of dump_cases.ts on a CUDA device, judged as test/sanitizers/runner.cc judges those of
// CPUs; needs the driver and nothing else. First a kernel of probe.cu, which shows that images are found and loaded.
//   --compute=TYPE  float32, tensorfloat32, float16 or bfloat16
//   --family=KIND   mma or hopper: the tile kernels of that family, wherever they can; else those that are chosen
//   --way=device    tensors are copied whole, and the kernels get them as they lie
//   --way=host      by host_call.cc; with --pieces=N in as little memory as 1/N of what the call takes
//   --way=tensorflow  as TensorFlow's ops on its GPU, on a fake TensorFlow (fake_tensorflow.h); appending to caches, too
//   --any-order     as if `deterministic: false` had been asked for; --repeat is then of no use
//   --repeat=N      runs each call N times, and wants the same bits
//   --soak=N        makes all calls N times more, and wants memory to stay what it was
//   --each=N        only N calls of each set of kernels
//   --match=TEXT    only calls whose name holds it
//   --from=N        leaves out the calls before number N of the (first) file
//   --show=N        of the calls that fail, how many are printed; --log=FILE gets all of them
//   --deadline=S    seconds after which a call is said to hang, and --limit=S after which all of them are left
//   --json=FILE     gets the line of JSON, too
//   --groups        a line for each set of kernels, those where nothing failed too
// The calls run in a process of their own: one that crashes, hangs or loses the device is named, and another process
// goes on behind it (supervise.h). Ends with a table, a line for each set of kernels where something failed and for
// each kind of call, and one line of JSON.
#include <unistd.h>

#include <algorithm>
#include <map>

#include "device_runs.h"
#include "supervise.h"
#include "verdict.h"

namespace flash_attention {
namespace {

struct Options {
  std::string compute = "float32", family, way = "device", match, json, log;
  int pieces = 0, repeat = 1, show = 25, soak = 0, each = 0;
  int64_t from = 0;
  bool groups = false, any_order = false;
  double deadline = 10, limit = 150;
  std::vector<std::string> files;
};

/** Of a line that is printed; the log has all of it. */
constexpr size_t MOST_LETTERS = 420;

/** Tells of a failure. */
void report(const Options& options, Progress& progress, const std::string& what, const std::string& error) {
  const std::string line = "FAILED  " + what + ": " + error;
  if (progress.shown++ < options.show) {
    std::printf("%s%s\n", line.substr(0, MOST_LETTERS).c_str(), line.size() > MOST_LETTERS ? " …" : "");
    std::fflush(stdout);
  }
  if (!options.log.empty()) {
    if (std::FILE* file = std::fopen(options.log.c_str(), "a")) {
      std::fprintf(file, "%s\n", line.c_str());
      std::fclose(file);
    }
  }
}

class CallsOnDevice {
 public:
  CallsOnDevice(const Options& options, Progress& progress) : options_(options), progress_(progress) {}

  Ending run(int64_t first) {
    CudaStatus status = selected_device(&device_);
    if (!status.ok()) {
      report(options_, progress_, "the device", status.text);
      return Ending::hopeless;
    }
    if (!progress_.is_opened) {
      const DeviceInfo& info = device_->info();
      progress_.is_opened = true;
      progress_.driver = cuda_driver().version;
      set_text(progress_.device, info.name);
      std::printf("%s, compute capability %d.%d, driver for CUDA %s, kernels by CUDA %s, context events %s\n",
                  info.name.c_str(), info.major, info.minor, cuda_version_text(cuda_driver().version).c_str(),
                  cuda_version_text(embedded_images().toolkit).c_str(),
                  cuda_driver().has_context_events() ? "yes" : "no");
      std::string text;
      const std::string error = run_probe(*device_, &text);
      std::printf("%s\n", error.empty() ? text.c_str() : "");
      if (!error.empty()) {
        report(options_, progress_, "probe", error);
        return Ending::hopeless;
      }
    }
    if (!options_.files.empty() && !find_kernels(*device_, options_.compute, options_.family, &kernels_)) {
      report(options_, progress_, "the calls", "there are no kernels " + options_.compute + " " + options_.family);
      return Ending::hopeless;
    }
    if (!run_calls(first) || !soak()) {
      return Ending::lost;
    }
    const ContextScope scope(*device_);
    release_staging();
    return Ending::done;
  }

 private:
  /** Those from number `first` on. False where the device is lost. */
  bool run_calls(int64_t first) {
    int64_t number = 0;
    for (const std::string& path : options_.files) {
      CallFile file(path.c_str());
      Call call;
      for (; file.next(&call); number++) {
        // By a case's name, so that a backward call has its forward call before it.
        if (options_.any_order) {
          call.description.at(DESCRIPTION_SIZE - 2) = 0;
        }
        if (number >= first && call.name.find(options_.match) != std::string::npos) {
          progress_.call = number;
          if (!run_call(call)) {
            return false;
          }
        }
      }
    }
    return true;
  }

  /** All calls again and again; memory in use, of the device and of this process, must stay what it was. */
  bool soak() {
    if (options_.soak <= 0) {
      return true;
    }
    const auto in_use = [&] {
      const ContextScope scope(*device_);
      size_t free = 0, total = 0;
      device_->api().memory_info(&free, &total);
      return std::pair<double, double>{(total - free) / 1048576., resident_bytes() / 1048576.};
    };
    const auto before = in_use();
    for (int round = 0; round < options_.soak; round++) {
      if (!run_calls(0)) {
        return false;
      }
    }
    const auto after = in_use();
    std::printf("%d times all calls again: the device's memory in use %.0f to %.0f MiB, the process' %.0f to %.0f MiB\n",
                options_.soak, before.first, after.first, before.second, after.second);
    if (after.first > before.first + 8 || after.second > before.second + 32) {
      report(options_, progress_, "memory", "grows when all calls are made again and again");
    }
    return true;
  }

  static int64_t resident_bytes() {
    long pages = 0, resident = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) {
        resident = 0;
      }
      std::fclose(file);
    }
    return resident * sysconf(_SC_PAGESIZE);
  }

  /** False where the device is lost. */
  bool run_call(const Call& call) {
    Description description;
    const std::string error = read_description(call.description.data(), call.description.size(), &description);
    const char* kind = description.kind == CallKind::forward    ? "forward"
                       : description.kind == CallKind::backward ? "backward"
                                                                : "append";
    bool is_left_out = false;
    const auto runner = [&](const Description& d, const Memory& memory, const Memory& results) -> std::string {
      const bool is_op = options_.way == "tensorflow";
      if ((d.kind == CallKind::append && !is_op) || (d.kind == CallKind::forward && d.output_elements() == 0)) {
        return "";
      }
      if (d.kind == CallKind::append) {
        return run_as_tensorflow(*device_, options_.compute, call, d, memory, results);
      }
      const HostCall described = host_call(d, memory, results);
      set_text(progress_.shape, shape_text(d));
      progress_.group =
          group_of(progress_, kind, kernels_of(*device_, options_.compute, options_.family, described));
      is_left_out = options_.each > 0 && progress_.of[progress_.group].calls >= options_.each;
      if (is_left_out) {
        return "";
      }
      if (is_op) {
        return run_as_tensorflow(*device_, options_.compute, call, d, memory, results);
      }
      return options_.way == "host" ? run_on_host(*device_, kernels_, described, options_.pieces)
                                    : run_on_device(*device_, kernels_, call, d, memory, results);
    };
    set_text(progress_.name, call.name);
    set_text(progress_.shape, "");
    progress_.group = group_of(progress_, kind, "none");
    progress_.since = seconds_now();
    const Run* forward = before_.error.empty() ? &before_ : nullptr;
    Run made = run_with(call, forward, runner);
    if (description.kind == CallKind::append && options_.way != "tensorflow") {
      return true;
    }
    if (is_left_out) {
      has_failed_before_ = false;
      before_.error = "left out";
      return true;
    }
    std::string wrong = error.empty() ? differences(call, made) : error;
    for (int again = 1; again < options_.repeat && wrong.empty(); again++) {
      progress_.since = seconds_now();
      wrong = same_bits(made, run_with(call, forward, runner)) ? "" : "other bits when it ran again";
    }
    const double worst = made.error.empty() ? worst_of(call, made) : 0;
    Group& group = progress_.of[progress_.group];
    group.calls++;
    if (worst > group.worst) {
      group.worst = worst;
      set_text(group.worst_call, call.name);
    }
    if (!wrong.empty()) {
      group.failures++;
      report(options_, progress_, call.name + " [" + progress_.shape + "; " + group.kernels + "]",
             wrong + (has_failed_before_ && description.kind == CallKind::backward
                          ? " (from the forward results of the file: its own were wrong)" : ""));
    }
    has_failed_before_ = !wrong.empty();
    before_ = std::move(made);
    if (has_failed_before_ && before_.error.empty()) {
      before_.error = wrong;
    }
    Device* still = nullptr;
    return Device::open(device_->info().ordinal, &still).ok();
  }

  const Options& options_;
  Progress& progress_;
  Device* device_ = nullptr;
  HostKernels kernels_;
  /** The run of the call before, which is taken for a backward call's forward call where it was right. */
  Run before_;
  bool has_failed_before_ = false;
};

bool read_options(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; i++) {
    const std::string argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals < argument.size() ? argument.substr(equals + 1) : "";
    const int number = std::atoi(value.c_str());
    if (name == "--compute") {
      options->compute = value;
    } else if (name == "--family") {
      options->family = value;
    } else if (name == "--way" && (value == "device" || value == "host" || value == "tensorflow")) {
      options->way = value;
    } else if (name == "--pieces") {
      options->pieces = number;
    } else if (name == "--repeat") {
      options->repeat = std::max(1, number);
    } else if (name == "--each") {
      options->each = number;
    } else if (name == "--soak") {
      options->soak = number;
    } else if (name == "--match") {
      options->match = value;
    } else if (name == "--json") {
      options->json = value;
    } else if (name == "--log") {
      options->log = value;
    } else if (name == "--any-order") {
      options->any_order = true;
    } else if (name == "--groups") {
      options->groups = true;
    } else if (name == "--show") {
      options->show = number;
    } else if (name == "--from") {
      options->from = number;
    } else if (name == "--deadline") {
      options->deadline = std::max(1, number);
    } else if (name == "--limit") {
      options->limit = std::max(1, number);
    } else if (name.compare(0, 2, "--") == 0) {
      return false;
    } else {
      options->files.push_back(argument);
    }
  }
  return true;
}

std::string text_of(double value) { return std::isfinite(value) ? std::to_string(value) : "null"; }

/** The table and the line of JSON; whether all is well. */
bool summarise(const Options& options, const Progress& progress, bool is_complete, double seconds) {
  struct Row {
    int calls = 0, failures = 0;
    const Group* worst = nullptr;
  };
  std::map<std::string, Row> rows;
  for (int n = 0; n < progress.groups; n++) {
    const Group& group = progress.of[n];
    if (group.calls == 0) {
      continue;
    }
    if (group.failures > 0 || options.groups) {
      std::printf("%4d of %4d failed: %s by %s, worst %.3g\n", group.failures, group.calls, group.kind, group.kernels,
                  group.worst);
    }
    Row& row = rows[group.kind];
    row.calls += group.calls;
    row.failures += group.failures;
    if (!row.worst || group.worst > row.worst->worst) {
      row.worst = &group;
    }
  }
  std::string json;
  int calls = 0, failures = 0;
  std::printf("%-10s %-14s %-7s %6s %7s  %s\n", "kind", "compute type", "way", "calls", "failed",
              "largest error, as a share of the allowed");
  for (const auto& [kind, row] : rows) {
    std::printf("%-10s %-14s %-7s %6d %7d  %.3f  %s\n", kind.c_str(), options.compute.c_str(), options.way.c_str(),
                row.calls, row.failures, row.worst->worst, row.worst->worst_call);
    calls += row.calls;
    failures += row.failures;
    json += ", \"" + kind + "\": {\"calls\": " + std::to_string(row.calls) + ", \"failures\": " +
            std::to_string(row.failures) + ", \"worst\": " + text_of(row.worst->worst) + "}";
  }
  const bool is_well =
      is_complete && failures == 0 && progress.shown == 0 && (calls > 0 || options.files.empty());
  json = "{\"device\": \"" + std::string(progress.device) + "\", \"driver\": " + std::to_string(progress.driver) +
         ", \"compute\": \"" + options.compute + "\", \"family\": \"" + options.family +
         "\", \"way\": \"" + options.way + "\", \"pieces\": " +
         std::to_string(options.pieces) + (options.any_order ? ", \"deterministic\": false" : "") + ", \"calls\": " + std::to_string(calls) + ", \"failures\": " +
         std::to_string(failures) + ", \"complete\": " + (is_complete ? "true" : "false") + ", \"seconds\": " +
         text_of(seconds) + ", \"ok\": " + (is_well ? "true" : "false") + json + "}";
  std::printf("%s\n", json.c_str());
  if (!options.json.empty()) {
    if (std::FILE* file = std::fopen(options.json.c_str(), "a")) {
      std::fprintf(file, "%s\n", json.c_str());
      std::fclose(file);
    }
  }
  return is_well;
}

int main_of(int count, char** arguments) {
  Options options;
  Progress* progress = shared_progress();
  if (!progress || !read_options(count, arguments, &options)) {
    std::fprintf(stderr, "runner [--compute=float32|tensorfloat32|float16|bfloat16] [--family=mma|hopper] "
                         "[--way=device|host|tensorflow] [--pieces=N] [--repeat=N] [--match=TEXT] [--from=N] [--show=N] "
                         "[--log=FILE] [--deadline=S] [--limit=S] [--json=FILE] [--groups] [--soak=N] [--each=N] [--any-order] "
                         "FILE...\n");
    return 2;
  }
  const double start = seconds_now();
  const bool is_complete = supervise(
      *progress, options.from, options.deadline, options.limit,
      [&](int64_t first) { return CallsOnDevice(options, *progress).run(first); },
      [&](const std::string& error) {
        if (progress->call < 0) {
          report(options, *progress, "the device", error);
          return;
        }
        Group& group = progress->of[progress->group];
        group.calls++;
        group.failures++;
        report(options, *progress, std::string(progress->name) + " [" + progress->shape + "; " + group.kernels + "]",
               error);
      });
  return summarise(options, *progress, is_complete, seconds_now() - start) ? 0 : 1;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
