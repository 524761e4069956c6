// Memory of a call on the device, and pinned memory that copies go through.
#pragma once

#include <vector>

#include "../cpu/attention.h"
#include "driver.h"

namespace flash_attention {

/**
 * Hands out device memory in the order of a stream, aligned to 256 bytes, and takes it back, in the same order, when it
 * ends. Current, also at the end.
 */
class DeviceWorkspace : public Workspace {
 public:
  DeviceWorkspace(Device& device, CuStream stream) : device_(device), stream_(stream) {}
  ~DeviceWorkspace() override { release(); }
  DeviceWorkspace(const DeviceWorkspace&) = delete;
  DeviceWorkspace& operator=(const DeviceWorkspace&) = delete;

  /** Null where there is none: then {@link status} says why. */
  void* allocate(size_t bytes) override;
  void release();
  const CudaStatus& status() const { return status_; }
  /** Bytes handed out since the last release. */
  size_t bytes() const { return bytes_; }

 private:
  Device& device_;
  const CuStream stream_;
  std::vector<CuDevicePtr> blocks_;
  size_t bytes_ = 0;
  CudaStatus status_;
};

/** Memory of the host that the device copies from and to by itself. Current. */
class PinnedBuffer {
 public:
  PinnedBuffer(Device& device, size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  void* get() const { return memory_; }
  size_t bytes() const { return bytes_; }
  const CudaStatus& status() const { return status_; }

 private:
  const DriverApi& api_;
  const size_t bytes_;
  void* memory_ = nullptr;
  CudaStatus status_;
};

}  // namespace flash_attention
