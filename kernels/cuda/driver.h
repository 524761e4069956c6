// The CUDA driver of this machine, its devices, and kernels on them. Without a driver or a device nothing happens but
// that a status says so.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "driver_api.h"
#include "images.h"

namespace flash_attention {

enum class CudaFailure {
  none,
  /** No driver, no device, or no kernels for it. */
  unavailable,
  out_of_memory,
  /** Somebody else has it, or it is not ready. */
  busy,
  /** The context is of no more use to this process. */
  device_lost,
  failed,
};

/** What became of a call, with the driver's own name for an error. */
struct CudaStatus {
  CudaFailure failure = CudaFailure::none;
  std::string text;
  bool ok() const { return failure == CudaFailure::none; }
};

struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0;
  size_t memory_bytes = 0;
  int multiprocessors = 0;
  /** Most shared memory of a block, bytes. */
  int shared_bytes = 0;
  int l2_bytes = 0;
  bool has_memory_pools = false;
};

/** What was found when it was first asked for. */
struct CudaDriver {
  CudaStatus status;
  DriverApi api;
  /** Of the CUDA that the driver knows, as in 13000 for 13.0. */
  int version = 0;
  std::vector<DeviceInfo> devices;

  /** Whether work can be ordered with streams that are not ours without waiting for it (12.4 or newer). */
  bool has_context_events() const { return api.context_record_event && api.context_wait_event; }
};

/**
 * The driver, opened at the first call and kept for the life of the process. From libcuda.so.1, or the file that the
 * environment variable FLASH_ATTENTION_LIBCUDA names.
 */
const CudaDriver& cuda_driver();

/** The status of a result: empty for success; `call` names the driver's function. */
CudaStatus cuda_status(CuResult result, const char* call);

/** "13.0" of 13000. */
std::string cuda_version_text(int version);

/** A kernel on a device. */
struct Kernel {
  CuFunction function = nullptr;
  int registers = 0, local_bytes = 0, shared_bytes = 0, most_threads = 0;
  /** The dynamic shared memory that it may be launched with, bytes. */
  int dynamic_shared_bytes = 0;
};

struct Grid {
  unsigned int x = 1, y = 1, z = 1;
};

/**
 * A device's primary context, which is TensorFlow's too, and our modules in it. Safe to use from several threads.
 * Everything that says "current" wants a {@link ContextScope} around it.
 */
class Device {
 public:
  /** The same object for the same ordinal, for the life of the process. */
  static CudaStatus open(int ordinal, Device** device);

  const DeviceInfo& info() const { return info_; }
  const DriverApi& api() const { return cuda_driver().api; }
  CuContext context() const { return context_; }

  /**
   * A kernel by its name; its module is loaded when the first of its kernels is asked for. Current.
   * @param dynamic_shared_bytes that it is to be launched with.
   */
  CudaStatus kernel(const char* name, int dynamic_shared_bytes, Kernel* kernel);

  /** Whether there is a kernel of that name for this device. */
  bool has_kernel(const char* name) const;

  /** Queues a kernel with one struct for its parameters. Current. */
  CudaStatus launch(const Kernel& kernel, Grid grid, unsigned int threads, CuStream stream, const void* parameters);

  /** Bytes that are free for us: those of the device, and what our pool holds unused. Current. */
  CudaStatus free_memory(size_t* bytes);

  /** Memory in the order of `stream`, aligned to 256 bytes; from a pool of ours where the device has pools. Current. */
  CudaStatus allocate(size_t bytes, CuStream stream, CuDevicePtr* memory);
  CudaStatus release(CuDevicePtr memory, CuStream stream);
  /** Gives the device what the pool holds unused. Current. */
  void trim();

  /** Notes that an error was one from which the context does not recover; from then on `open` fails. */
  CudaStatus noted(CudaStatus status);

 private:
  Device(const DeviceInfo& info, CuContext context) : info_(info), context_(context) {}
  CudaStatus load(int unit, CuModule* module);

  const DeviceInfo info_;
  const CuContext context_;
  std::mutex mutex_;
  std::map<int, CuModule> modules_;
  std::map<std::string, Kernel> kernels_;
  CuMemoryPool pool_ = nullptr;
  bool is_pool_tried_ = false;
  std::string lost_;
};

/** Makes a device's context current for this thread, and afterwards the one that was. */
class ContextScope {
 public:
  explicit ContextScope(Device& device);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  const CudaStatus& status() const { return status_; }

 private:
  const DriverApi& api_;
  CudaStatus status_;
};

/**
 * The device for calls that do not name one: that of {@link select_device}, else of the environment variable
 * FLASH_ATTENTION_CUDA_DEVICE (an ordinal among those that CUDA_VISIBLE_DEVICES leaves), else the first that the addon
 * has kernels for.
 */
CudaStatus selected_device(Device** device);

/** Holds for the process; −1: as before the first call. */
CudaStatus select_device(int ordinal);

}  // namespace flash_attention
