#include "streams.h"

namespace flash_attention {

StreamOwner::StreamOwner(Device& device) : api_(device.api()) {
  status_ = device.noted(cuda_status(api_.stream_create(&stream_, cu::STREAM_NON_BLOCKING), "cuStreamCreate"));
}

StreamOwner::~StreamOwner() {
  if (status_.ok()) {
    api_.stream_destroy(stream_);
  }
}

EventOwner::EventOwner(Device& device, bool is_timed) : api_(device.api()) {
  status_ =
      device.noted(cuda_status(api_.event_create(&event_, is_timed ? 0 : cu::EVENT_DISABLE_TIMING), "cuEventCreate"));
}

EventOwner::~EventOwner() {
  if (status_.ok()) {
    api_.event_destroy(event_);
  }
}

CudaStatus begin_after_context(Device& device, CuStream stream) {
  const DriverApi& api = device.api();
  if (!cuda_driver().has_context_events()) {
    return device.noted(cuda_status(api.context_synchronize(), "cuCtxSynchronize"));
  }
  EventOwner event(device);
  CudaStatus status = event.status();
  if (status.ok()) {
    status = cuda_status(api.context_record_event(device.context(), event.get()), "cuCtxRecordEvent");
  }
  if (status.ok()) {
    status = cuda_status(api.stream_wait_event(stream, event.get(), 0), "cuStreamWaitEvent");
  }
  return device.noted(status);
}

CudaStatus hold_context_until(Device& device, CuStream stream) {
  const DriverApi& api = device.api();
  if (!cuda_driver().has_context_events()) {
    return device.noted(cuda_status(api.stream_synchronize(stream), "cuStreamSynchronize"));
  }
  EventOwner event(device);
  CudaStatus status = event.status();
  if (status.ok()) {
    status = cuda_status(api.event_record(event.get(), stream), "cuEventRecord");
  }
  if (status.ok()) {
    status = cuda_status(api.context_wait_event(device.context(), event.get()), "cuCtxWaitEvent");
  }
  return device.noted(status);
}

}  // namespace flash_attention
