#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "attention.h"

namespace flash_attention {
namespace {

/** A call's tasks. It lives on the stack of the thread that made the call, which waits until no other uses it. */
struct Job {
  Work work;
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::atomic<int> next_worker{1};
  /** Under the pool's lock: how many more threads may join, and how many are at it. */
  int places;
  int active = 0;

  void run(int worker) {
    for (int64_t task = next++; task < tasks; task = next++) {
      work(context, task, worker);
    }
  }
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      jobs_.push_back(&job);
      int wanted = 0;
      for (const Job* each : jobs_) {
        wanted += each->places;
      }
      start(wanted);
    }
    wake_.notify_all();
    job.run(0);
    std::unique_lock<std::mutex> lock(mutex_);
    remove(job);
    done_.wait(lock, [&job] { return job.active == 0; });
  }

  /** No thread is left when this returns. Calls that are under way end on their own threads. */
  void stop() {
    std::vector<std::thread> threads;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      threads.swap(threads_);
      generation_++;
      idle_ = 0;
    }
    wake_.notify_all();
    for (std::thread& thread : threads) {
      thread.join();
    }
  }

 private:
  /** Sees to it that as many threads as are wanted are idle or on their way; under the lock. */
  void start(int wanted) {
    for (; idle_ < wanted; idle_++) {
      try {
        threads_.emplace_back(&Pool::wait_for_work, this, generation_);
      } catch (const std::system_error&) {
        return;
      }
    }
  }

  void remove(const Job& job) {
    for (size_t i = 0; i < jobs_.size(); i++) {
      if (jobs_[i] == &job) {
        jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(i));
        return;
      }
    }
  }

  Job* open_job() {
    for (Job* job : jobs_) {
      if (job->places > 0 && job->next < job->tasks) {
        return job;
      }
    }
    return nullptr;
  }

  void wait_for_work(int64_t generation) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      Job* job = nullptr;
      wake_.wait(lock, [&] { return generation != generation_ || (job = open_job()) != nullptr; });
      if (generation != generation_) {
        return;
      }
      job->places--;
      job->active++;
      idle_--;
      lock.unlock();
      job->run(job->next_worker++);
      lock.lock();
      job->active--;
      if (generation == generation_) {
        idle_++;
      }
      done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  std::vector<Job*> jobs_;
  int idle_ = 0;
  /** Threads of an older one end. */
  int64_t generation_ = 0;
};

/** Never destroyed: threads may wait in it when the process ends. */
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

/** CPUs' worth of time that a control group grants, or 0 where it sets no bound. */
double quota(const char* path_of_both, const char* path_of_quota, const char* path_of_period) {
  double granted = 0, period = 0;
  if (std::FILE* file = std::fopen(path_of_both, "r")) {
    const int read = std::fscanf(file, "%lf %lf", &granted, &period);
    std::fclose(file);
    return read == 2 && period > 0 ? granted / period : 0;
  }
  std::FILE* first = std::fopen(path_of_quota, "r");
  std::FILE* second = std::fopen(path_of_period, "r");
  const bool read = first && second && std::fscanf(first, "%lf", &granted) == 1 &&
      std::fscanf(second, "%lf", &period) == 1;
  if (first) {
    std::fclose(first);
  }
  if (second) {
    std::fclose(second);
  }
  return read && granted > 0 && period > 0 ? granted / period : 0;
}

int count_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    cpus = CPU_COUNT(&set);
  }
  const double granted = quota("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                               "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (granted > 0 && granted < cpus) {
    cpus = static_cast<int>(granted + 0.5);
  }
#endif
  return cpus > 0 ? cpus : 1;
}

}  // namespace

int default_threads() {
  static const int cpus = count_cpus();
  return cpus;
}

void stop_threads() { pool().stop(); }

void run_tasks(int64_t tasks, int threads, Work work, void* context) {
  Job job;
  job.work = work;
  job.context = context;
  job.tasks = tasks;
  job.places = static_cast<int>(threads < tasks ? threads : tasks) - 1;
  if (job.places <= 0) {
    job.run(0);
    return;
  }
  pool().run(job);
}

}  // namespace flash_attention
