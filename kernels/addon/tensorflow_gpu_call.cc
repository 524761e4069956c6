#include "tensorflow_gpu_call.h"

#include <map>
#include <mutex>

#include "../cuda/append.h"
#include "../cuda/streams.h"
#include "described_call.h"
#include "device_kernels.h"
#include "run_call.h"
#include "tensorflow_run.h"

namespace flash_attention {
namespace {

void require(const CudaStatus& status) { Run::require(status.text, TF_INTERNAL_CODE); }

/** The device that the tensors are on: TensorFlow counts devices otherwise than the driver may. Null: all are empty. */
Device* device_of(const Run& run) {
  const CudaDriver& driver = cuda_driver();
  require(driver.status);
  for (int name = 0; name < TENSOR_NAMES; name++) {
    if (!run.description.has(name) || element_type(name) == ElementType::int32 || run.elements[name] == 0) {
      continue;
    }
    int ordinal = 0;
    require(cuda_status(driver.api.pointer_attribute(&ordinal, cu::POINTER_DEVICE_ORDINAL,
                                                     reinterpret_cast<uintptr_t>(run.memory.data[name])),
                        "cuPointerGetAttribute"));
    Device* device = nullptr;
    require(Device::open(ordinal, &device));
    return device;
  }
  return nullptr;
}

/** Our stream on a device, for the life of the process. Current. */
CuStream stream_of(Device& device) {
  static std::mutex mutex;
  static auto* streams = new std::map<Device*, std::unique_ptr<StreamOwner>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<StreamOwner>& stream = (*streams)[&device];
  if (!stream || !stream->status().ok()) {
    stream = std::make_unique<StreamOwner>(device);
  }
  require(stream->status());
  return stream->get();
}

/**
 * Work between what TensorFlow has queued before and what it queues afterwards. However the work ends, what was queued
 * of it comes before the next use of memory that goes back to TensorFlow: so that must outlive this.
 */
class Turn {
 public:
  explicit Turn(Device& device) : device_(device), scope_(device) {
    require(scope_.status());
    stream_ = stream_of(device);
    require(begin_after_context(device, stream_));
  }
  ~Turn() {
    if (!is_ended_) {
      device_.api().stream_synchronize(stream_);
    }
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  CuStream stream() const { return stream_; }
  void end() {
    const CudaStatus status = hold_context_until(device_, stream_);
    is_ended_ = status.ok();
    require(status);
  }

 private:
  Device& device_;
  const ContextScope scope_;
  CuStream stream_ = nullptr;
  bool is_ended_ = false;
};

/** The integers of a call, which TensorFlow has in the host's memory, in the device's. */
void move_integers(Device& device, const Run& run, Workspace& workspace, CuStream stream, Memory* memory) {
  for (int name : {SEQUENCES, BLOCK_TABLE}) {
    if (!run.description.has(name)) {
      continue;
    }
    const auto* from = static_cast<const int32_t*>(run.memory.data[name]);
    // A copy in memory that is not pinned: of that the driver takes what it needs before it returns, whereas
    // TensorFlow's may be pinned, and hold something else by the time it is read.
    const std::vector<int32_t> values(from, from + run.elements[name]);
    const size_t bytes = values.size() * sizeof(int32_t);
    memory->data[name] = workspace.allocate(bytes);
    Run::require(memory->data[name] ? "" : "TensorFlow has no memory on the GPU for the call", TF_INTERNAL_CODE);
    if (bytes > 0) {
      require(device.noted(cuda_status(
          device.api().copy_to_device(reinterpret_cast<uintptr_t>(memory->data[name]), values.data(), bytes, stream),
          "cuMemcpyHtoDAsync")));
    }
  }
}

}  // namespace

void attention_on_gpu(const TensorFlowApi& api, TF_OpKernelContext* context) {
  guarded(api, context, [&] {
    Run run(api, context);
    run.read(false);
    const Description& d = run.description;
    const Memory results = run.allocate_results();
    Device* device = device_of(run);
    const bool is_empty = d.kind == CallKind::forward && d.output_elements() == 0;
    if (device && !is_empty) {
      TemporaryTensors workspace(api, context, TemporaryTensors::Place::device);
      Turn turn(*device);
      Memory memory = run.memory;
      move_integers(*device, run, workspace, turn.stream(), &memory);
      require(device_kernels(*device, d.compute_type)
                  .run(*device, host_call(d, memory, results), workspace, turn.stream()));
      turn.end();
      call_counts().cuda++;
    }
    (d.kind == CallKind::forward ? call_counts().forward : call_counts().backward)++;
    call_counts().tensorflow++;
  });
}

void append_on_gpu(const TensorFlowApi& api, TF_OpKernelContext* context) {
  guarded(api, context, [&] {
    Run run(api, context);
    run.read(true);
    if (Device* device = device_of(run)) {
      Turn turn(*device);
      require(cuda_append_to_cache(*device, run.description.problem, tensors_of(run.description, run.memory),
                                   static_cast<const float*>(run.memory.data[OUTPUT]),
                                   static_cast<float*>(run.memory.data[K]), static_cast<float*>(run.memory.data[V]),
                                   turn.stream()));
      turn.end();
      call_counts().cuda++;
    }
    call_counts().append++;
    call_counts().tensorflow++;
  });
}

}  // namespace flash_attention
