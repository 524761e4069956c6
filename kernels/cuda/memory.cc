#include "memory.h"

namespace flash_attention {

void* DeviceWorkspace::allocate(size_t bytes) {
  CuDevicePtr memory = 0;
  try {
    blocks_.push_back(0);  // room first: what is allocated is then always noted
  } catch (...) {
    status_ = {CudaFailure::failed, "the host is out of memory"};
    return nullptr;
  }
  const CudaStatus status = device_.allocate(bytes, stream_, &memory);
  if (!status.ok()) {
    blocks_.pop_back();
    status_ = status;
    return nullptr;
  }
  blocks_.back() = memory;
  bytes_ += bytes;
  return reinterpret_cast<void*>(static_cast<uintptr_t>(memory));
}

void DeviceWorkspace::release() {
  for (CuDevicePtr block : blocks_) {
    device_.release(block, stream_);
  }
  blocks_.clear();
  bytes_ = 0;
}

PinnedBuffer::PinnedBuffer(Device& device, size_t bytes) : api_(device.api()), bytes_(bytes) {
  status_ = device.noted(cuda_status(api_.host_allocate(&memory_, bytes, cu::HOST_ALLOC_PORTABLE), "cuMemHostAlloc"));
  if (!status_.ok()) {
    status_.text = std::to_string(bytes) + " bytes of pinned memory: " + status_.text;
  }
}

PinnedBuffer::~PinnedBuffer() {
  if (status_.ok()) {
    api_.host_free(memory_);
  }
}

}  // namespace flash_attention
