// Streams and events, and how work is ordered with streams that are not ours.
#pragma once

#include "driver.h"

namespace flash_attention {

/** A stream of our own, which waits for no other. Current. */
class StreamOwner {
 public:
  explicit StreamOwner(Device& device);
  ~StreamOwner();
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  CuStream get() const { return stream_; }
  const CudaStatus& status() const { return status_; }

 private:
  const DriverApi& api_;
  CuStream stream_ = nullptr;
  CudaStatus status_;
};

/** An event. Current. */
class EventOwner {
 public:
  explicit EventOwner(Device& device, bool is_timed = false);
  ~EventOwner();
  EventOwner(const EventOwner&) = delete;
  EventOwner& operator=(const EventOwner&) = delete;
  CuEvent get() const { return event_; }
  const CudaStatus& status() const { return status_; }

 private:
  const DriverApi& api_;
  CuEvent event_ = nullptr;
  CudaStatus status_;
};

/**
 * Orders a stream after everything that any stream of the device's context has been given to do, as TensorFlow's. Where
 * the driver has no events of contexts (older than 12.4), waits for it. Current.
 */
CudaStatus begin_after_context(Device& device, CuStream stream);

/** Orders what any stream of the context is given from now on after the stream's work; else waits for it. Current. */
CudaStatus hold_context_until(Device& device, CuStream stream);

}  // namespace flash_attention
