// Work on a device in processes that may crash, hang, or lose their context: what they have found until then stays,
// and another one goes on behind the call that it was.
#pragma once

#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

namespace flash_attention {

inline double seconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/** Counts of the calls that one set of kernels ran. */
struct Group {
  char kind[12], kernels[200];
  int calls, failures;
  /** Largest error as a share of the allowed. */
  double worst;
  char worst_call[200];
};

/** What processes share. All of it is zeros first. */
struct Progress {
  static constexpr int MOST_GROUPS = 512;

  /** The call that runs, and since when. −1: none, while the device is opened. */
  volatile int64_t call;
  volatile double since;
  char name[400], shape[300];
  int group;

  char device[256];
  int driver;
  bool is_opened;
  /** Of those that failed, how many were shown. */
  int shown;
  int groups;
  Group of[MOST_GROUPS];
};

template <size_t SIZE>
void set_text(char (&to)[SIZE], const std::string& from) {
  std::snprintf(to, SIZE, "%s", from.c_str());
}

inline Progress* shared_progress() {
  void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<Progress*>(memory);
}

/** The group of calls of a kind by these kernels. */
inline int group_of(Progress& progress, const std::string& kind, const std::string& kernels) {
  Group own = {};
  set_text(own.kind, kind);
  set_text(own.kernels, kernels);
  for (int n = 0; n < progress.groups; n++) {
    if (!std::strcmp(progress.of[n].kind, own.kind) && !std::strcmp(progress.of[n].kernels, own.kernels)) {
      return n;
    }
  }
  if (progress.groups < Progress::MOST_GROUPS) {
    progress.of[progress.groups++] = own;
  }
  return progress.groups - 1;
}

/** How a process says that it ended. */
enum class Ending : int { done = 0, lost = 3, hopeless = 4 };

/**
 * Runs `work(first)` in a process of its own, and again behind the call at which it crashed, hung for `deadline`
 * seconds or lost the device, of which `failed` is told what it was. Nothing of CUDA may have been called before.
 * @param limit of all of them together, in seconds
 * @return whether it came to the end
 */
inline bool supervise(Progress& progress, int64_t first, double deadline, double limit,
                      const std::function<Ending(int64_t)>& work,
                      const std::function<void(const std::string&)>& failed) {
  const double start = seconds_now();
  for (;;) {
    std::fflush(nullptr);
    progress.call = -1;
    progress.since = seconds_now();
    const pid_t child = fork();
    if (child < 0) {
      failed("no process could be started");
      return false;
    }
    if (child == 0) {
      const Ending ending = work(first);
      std::fflush(nullptr);
      // Not exit: a device in disorder may keep its destructors waiting.
      _exit(static_cast<int>(ending));
    }
    int status = 0;
    bool is_late = false, is_over = false;
    while (waitpid(child, &status, WNOHANG) == 0) {
      const double now = seconds_now();
      if (!is_late && !is_over && (now - progress.since > deadline || now - start > limit)) {
        is_late = now - progress.since > deadline;
        is_over = !is_late;
        kill(child, SIGKILL);
      }
      usleep(5000);
    }
    if (is_over || (is_late && seconds_now() - start > limit)) {
      failed("stopped at call " + std::to_string(progress.call) + ", after " +
             std::to_string(static_cast<int>(seconds_now() - start)) + " s; those that follow were not run");
      return false;
    }
    if (!is_late && WIFEXITED(status)) {
      const int code = WEXITSTATUS(status);
      if (code == static_cast<int>(Ending::done)) {
        return true;
      }
      if (code == static_cast<int>(Ending::hopeless)) {
        return false;
      }
      if (code != static_cast<int>(Ending::lost)) {
        failed("its process ended with code " + std::to_string(code));
      }
    } else {
      failed(is_late ? "hung for " + std::to_string(static_cast<int>(deadline)) + " s"
                     : std::string("crashed: ") + strsignal(WTERMSIG(status)));
    }
    if (progress.call < 0) {
      return false;
    }
    first = progress.call + 1;
  }
}

}  // namespace flash_attention
