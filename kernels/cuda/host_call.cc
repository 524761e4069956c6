#include "host_call.h"

#include <algorithm>
#include <memory>

#include "../cpu/threads.h"
#include "memory.h"
#include "streams.h"

namespace flash_attention {
namespace {

/** Of the free memory, what is left to others: libraries that start later, the display, fragmentation. */
constexpr int64_t RESERVE = int64_t{256} << 20;
constexpr int64_t LEAST_STAGING = 4096;
constexpr int MOST_ATTEMPTS = 3;
/** Threads that copy to pinned memory; more do not make memory faster. */
constexpr int COPY_THREADS = 8;
constexpr int64_t WORTH_A_THREAD = int64_t{1} << 20;
/** Sets of staging buffers that are kept, of all devices. */
constexpr size_t MOST_KEPT = 2;

/** A pinned buffer, and the event after which it may be used again. */
struct Staging {
  Staging(Device& device, size_t bytes) : buffer(device, bytes), is_free(device) {}
  PinnedBuffer buffer;
  EventOwner is_free;

  const CudaStatus& status() const { return buffer.status().ok() ? is_free.status() : buffer.status(); }
};

/** Pinning memory takes milliseconds: what a call has pinned is kept for the next. */
struct StagingSet {
  StagingSet(Device& of, size_t bytes) : device(of), up{{of, bytes}, {of, bytes}}, down{{of, bytes}, {of, bytes}} {}
  Device& device;
  Staging up[2], down[2];

  CudaStatus status() const {
    for (const Staging* staging : {&up[0], &up[1], &down[0], &down[1]}) {
      if (!staging->status().ok()) {
        return staging->status();
      }
    }
    return {};
  }
};

struct KeptStaging {
  std::mutex mutex;
  std::vector<std::unique_ptr<StagingSet>> sets;
};

KeptStaging& kept_staging() {
  static auto* kept = new KeptStaging;
  return *kept;
}

/** Current. */
std::unique_ptr<StagingSet> take_staging(Device& device, size_t bytes) {
  {
    KeptStaging& kept = kept_staging();
    std::lock_guard<std::mutex> lock(kept.mutex);
    for (auto& set : kept.sets) {
      if (&set->device == &device && set->up[0].buffer.bytes() == bytes) {
        auto taken = std::move(set);
        std::swap(set, kept.sets.back());
        kept.sets.pop_back();
        return taken;
      }
    }
  }
  return std::make_unique<StagingSet>(device, bytes);
}

/** Current. Only of calls that went well: then nothing is under way. */
void keep_staging(std::unique_ptr<StagingSet> set) {
  KeptStaging& kept = kept_staging();
  std::lock_guard<std::mutex> lock(kept.mutex);
  if (kept.sets.size() < MOST_KEPT) {
    kept.sets.push_back(std::move(set));
  }
}

/** Copies a stretch with several threads where that is faster. */
void copy_with_threads(const Transfer& transfer, int64_t first, int64_t end, char* run) {
  struct Context {
    const Transfer& transfer;
    int64_t first, end, step;
    char* run;
  };
  const int64_t bytes = (end - first) * transfer.element_bytes;
  const int64_t tasks = std::max<int64_t>(1, std::min<int64_t>(COPY_THREADS, bytes / WORTH_A_THREAD));
  Context context = {transfer, first, end, (end - first + tasks - 1) / tasks, run};
  const auto work = [](void* data, int64_t task, int) {
    const Context& of = *static_cast<Context*>(data);
    const int64_t begin = of.first + task * of.step, stop = std::min(of.end, begin + of.step);
    char* at = of.run + (begin - of.first) * of.transfer.element_bytes;
    if (begin < stop && of.transfer.from) {
      gather(of.transfer, begin, stop, at);
    } else if (begin < stop) {
      scatter(of.transfer, begin, stop, at);
    }
  };
  run_tasks(tasks, static_cast<int>(std::min<int64_t>(tasks, default_threads())), work, &context);
}

/** One attempt at a call, piece by piece: the copies of one go on while the kernels of another compute. */
class HostRun {
 public:
  HostRun(Device& device, const HostCall& call, const HostKernels& kernels, const PiecePlan& plan, size_t staging_bytes)
      : device_(device), api_(device.api()), call_(call), kernels_(kernels), plan_(plan), upload_(device),
        compute_(device), download_(device), slots_{Slot(device), Slot(device)}, tensors_(device, compute_.get()),
        staging_(take_staging(device, staging_bytes)) {}

  ~HostRun() {
    if (!is_done_) {
      // Copies may be under way from and to memory that goes now.
      for (const StreamOwner* stream : {&upload_, &compute_, &download_}) {
        if (stream->status().ok()) {
          api_.stream_synchronize(stream->get());
        }
      }
    } else {
      keep_staging(std::move(staging_));
    }
  }

  CudaStatus run() {
    CudaStatus status = begin();
    for (size_t n = 0; status.ok() && n <= plan_.pieces.size(); n++) {
      if (n < plan_.pieces.size()) {
        status = start(n);
      }
      if (status.ok() && n > 0) {
        status = collect(n - 1);
      }
    }
    if (status.ok()) {
      tensors_.release();
      status = check(api_.stream_synchronize(compute_.get()), "cuStreamSynchronize");
    }
    is_done_ = status.ok();
    return status;
  }

 private:
  /** The memory of a piece's tensors on the device. */
  struct Slot {
    explicit Slot(Device& device) : uploaded(device), computed(device) {}
    void* memory = nullptr;
    PieceCall piece;
    EventOwner uploaded, computed;
  };

  /** A stretch of a result on its way to the host. */
  struct Arriving {
    const Transfer* transfer = nullptr;
    int64_t first = 0, end = 0;
  };

  CudaStatus check(CuResult result, const char* call) { return device_.noted(cuda_status(result, call)); }

  CudaStatus begin() {
    for (const CudaStatus& status :
         {upload_.status(), compute_.status(), download_.status(), staging_->status(), slots_[0].uploaded.status(),
          slots_[0].computed.status(), slots_[1].uploaded.status(), slots_[1].computed.status()}) {
      if (!status.ok()) {
        return status;
      }
    }
    for (size_t n = 0; n < std::min<size_t>(2, plan_.pieces.size()); n++) {
      slots_[n].memory = tensors_.allocate(static_cast<size_t>(plan_.device_bytes));
      if (!slots_[n].memory) {
        return tensors_.status();
      }
    }
    // The memory is there in the order of the stream for computing.
    EventOwner& allocated = slots_[0].computed;
    CudaStatus status = check(api_.event_record(allocated.get(), compute_.get()), "cuEventRecord");
    return status.ok() ? check(api_.stream_wait_event(upload_.get(), allocated.get(), 0), "cuStreamWaitEvent") : status;
  }

  /** Queues a piece's copies to the device and its kernels. */
  CudaStatus start(size_t n) {
    Slot& slot = slots_[n % 2];
    // The slot's last piece is back on the host (collect), so its memory is free.
    slot.piece = piece_call(call_, plan_.pieces[n]);
    CudaStatus status;
    for (const Transfer& transfer : slot.piece.transfers) {
      if (status.ok() && transfer.from) {
        status = upload(transfer, slot);
      }
    }
    if (status.ok()) {
      status = check(api_.event_record(slot.uploaded.get(), upload_.get()), "cuEventRecord");
    }
    if (status.ok()) {
      status = check(api_.stream_wait_event(compute_.get(), slot.uploaded.get(), 0), "cuStreamWaitEvent");
    }
    if (!status.ok()) {
      return status;
    }
    DeviceWorkspace workspace(device_, compute_.get());
    status = device_.noted(kernels_.run(device_, on_device(slot.piece, slot.memory), workspace, compute_.get()));
    if (!status.ok()) {
      // The kernels say only that they got none.
      return workspace.status().ok() ? status : workspace.status();
    }
    return check(api_.event_record(slot.computed.get(), compute_.get()), "cuEventRecord");
  }

  int64_t chunk_of(const Transfer& transfer) const {
    return static_cast<int64_t>(staging_->up[0].buffer.bytes()) / transfer.element_bytes;
  }

  static CuDevicePtr address(const Slot& slot, const Transfer& transfer, int64_t element) {
    return reinterpret_cast<uintptr_t>(slot.memory) + transfer.device_offset + element * transfer.element_bytes;
  }

  CudaStatus upload(const Transfer& transfer, const Slot& slot) {
    const int64_t count = transfer.block.elements(), chunk = chunk_of(transfer);
    CudaStatus status;
    for (int64_t first = 0; status.ok() && first < count; first += chunk) {
      const int64_t end = std::min(count, first + chunk);
      Staging& staging = staging_->up[uploads_++ % 2];
      status = check(api_.event_synchronize(staging.is_free.get()), "cuEventSynchronize");
      if (status.ok()) {
        copy_with_threads(transfer, first, end, static_cast<char*>(staging.buffer.get()));
        status = check(api_.copy_to_device(address(slot, transfer, first), staging.buffer.get(),
                                           static_cast<size_t>((end - first) * transfer.element_bytes), upload_.get()),
                       "cuMemcpyHtoDAsync");
      }
      if (status.ok()) {
        status = check(api_.event_record(staging.is_free.get(), upload_.get()), "cuEventRecord");
      }
    }
    return status;
  }

  /** Brings a piece's results to the host. */
  CudaStatus collect(size_t n) {
    Slot& slot = slots_[n % 2];
    CudaStatus status = check(api_.stream_wait_event(download_.get(), slot.computed.get(), 0), "cuStreamWaitEvent");
    for (const Transfer& transfer : slot.piece.transfers) {
      if (status.ok() && transfer.to) {
        status = download(transfer, slot);
      }
    }
    for (int late = 0; late < 2 && status.ok(); late++) {
      status = arrive(downloads_++ % 2);
    }
    return status;
  }

  CudaStatus download(const Transfer& transfer, const Slot& slot) {
    const int64_t count = transfer.block.elements(), chunk = chunk_of(transfer);
    CudaStatus status;
    for (int64_t first = 0; status.ok() && first < count; first += chunk) {
      const int64_t end = std::min(count, first + chunk);
      const int64_t at = downloads_++ % 2;
      Staging& staging = staging_->down[at];
      status = arrive(at);
      if (status.ok()) {
        status = check(api_.copy_to_host(staging.buffer.get(), address(slot, transfer, first),
                                         static_cast<size_t>((end - first) * transfer.element_bytes), download_.get()),
                       "cuMemcpyDtoHAsync");
      }
      if (status.ok()) {
        status = check(api_.event_record(staging.is_free.get(), download_.get()), "cuEventRecord");
        arriving_[at] = {&transfer, first, end};
      }
    }
    return status;
  }

  /** Takes what is in a staging buffer, or on its way there, to where it belongs. */
  CudaStatus arrive(int64_t at) {
    Arriving arriving = arriving_[at];
    if (!arriving.transfer) {
      return {};
    }
    Staging& staging = staging_->down[at];
    arriving_[at] = {};
    const CudaStatus status = check(api_.event_synchronize(staging.is_free.get()), "cuEventSynchronize");
    if (status.ok()) {
      copy_with_threads(*arriving.transfer, arriving.first, arriving.end, static_cast<char*>(staging.buffer.get()));
    }
    return status;
  }

  Device& device_;
  const DriverApi& api_;
  const HostCall& call_;
  const HostKernels& kernels_;
  const PiecePlan& plan_;
  StreamOwner upload_, compute_, download_;
  Slot slots_[2];
  DeviceWorkspace tensors_;
  std::unique_ptr<StagingSet> staging_;
  int64_t uploads_ = 0, downloads_ = 0;
  Arriving arriving_[2];
  bool is_done_ = false;
};

CudaStatus memory_limit(Device& device, const HostCallOptions& options, int64_t* limit) {
  size_t free = 0;
  const CudaStatus status = device.free_memory(&free);
  const int64_t ours = std::max<int64_t>(0, static_cast<int64_t>(free) - RESERVE);
  *limit = options.limit > 0 ? options.limit : ours;
  return status;
}

CudaStatus does_not_fit(const Device& device, const HostCall& call, const HostKernels& kernels, int64_t limit) {
  const Problem& p = call.problem;
  const PieceCall least = piece_call(call, {0, std::min<int64_t>(1, p.batch), 0, std::min<int64_t>(1, p.key_heads)});
  const int64_t wanted = least.device_bytes + kernels.workspace_bytes(least.call);
  return {CudaFailure::out_of_memory,
          "a key head of this call takes " + std::to_string(wanted) + " bytes or more on " + device.info().name +
              ", and " + std::to_string(limit) + " are free; use shorter sequences, or end what else uses the device"};
}

}  // namespace

CudaStatus run_host_call(Device& device, const HostCall& call, const HostKernels& kernels,
                         const HostCallOptions& options, HostCallReport* report) {
  const ContextScope scope(device);
  if (!scope.status().ok()) {
    return scope.status();
  }
  int64_t limit = 0;
  CudaStatus status = memory_limit(device, options, &limit);
  const auto staging_bytes =
      static_cast<size_t>(std::max(LEAST_STAGING, options.staging_bytes / LEAST_STAGING * LEAST_STAGING));
  for (int attempt = 1; status.ok(); attempt++) {
    const PiecePlan plan = plan_pieces(call, limit, kernels.workspace_bytes);
    if (report) {
      *report = {static_cast<int64_t>(plan.pieces.size()), plan.device_bytes, plan.workspace_bytes, attempt};
    }
    if (plan.pieces.empty()) {
      const bool is_empty = call.problem.batch == 0 || call.problem.query_heads == 0;
      return is_empty ? CudaStatus{} : does_not_fit(device, call, kernels, limit);
    }
    {
      HostRun run(device, call, kernels, plan, staging_bytes);
      status = run.run();
    }
    if (status.failure != CudaFailure::out_of_memory || attempt == MOST_ATTEMPTS) {
      return status;
    }
    // Somebody has taken what was free, or the kernels want more than they said.
    limit = std::min(limit, plan.needed_bytes) / 2;
    status = {};
  }
  return status;
}

std::string run_host_call_or_cpu(const HostCall& call, const KernelsOfDevice& kernels, const HostCallOptions& options,
                                 OnCudaFailure on_failure, Workspace& host_workspace, int threads,
                                 std::string* used_cpu) {
  Device* device = nullptr;
  CudaStatus status = selected_device(&device);
  if (status.ok()) {
    status = run_host_call(*device, call, kernels(*device), options);
  }
  if (status.ok() || on_failure == OnCudaFailure::error || status.failure == CudaFailure::failed) {
    return status.text;
  }
  if (used_cpu) {
    *used_cpu = status.text;
  }
  const Status made =
      call.is_backward
          ? attention_backward(call.problem, call.tensors, call.inputs, call.gradients, host_workspace, threads)
          : attention_forward(call.problem, call.tensors, call.outputs, host_workspace, threads);
  return made.text;
}

void release_staging() {
  KeptStaging& kept = kept_staging();
  std::vector<std::unique_ptr<StagingSet>> sets;
  {
    std::lock_guard<std::mutex> lock(kept.mutex);
    sets.swap(kept.sets);
  }
  for (auto& set : sets) {
    const ContextScope scope(set->device);
    set.reset();
  }
}

}  // namespace flash_attention
