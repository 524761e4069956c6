// driver_program [kernel]: opens the driver as the addon does and says in lines what came of it: test/cuda/run.mjs
// knows what it should be on the fake libcuda, set up in many ways. With a kernel's name, runs it as flash_probe.
#include <cstdio>
#include <vector>

#include "cuda/memory.h"
#include "cuda/streams.h"

namespace flash_attention {
namespace {

const char* const FAILURES[] = {"none", "unavailable", "out of memory", "busy", "lost", "failed"};

bool say(const char* what, const CudaStatus& status) {
  std::printf("%s: %s%s%s\n", what, FAILURES[static_cast<int>(status.failure)], status.ok() ? "" : ": ",
              status.text.c_str());
  return status.ok();
}

struct ProbeParams {
  CuDevicePtr values;
  int64_t count;
  float factor;
};

/** values[i] = i · factor by the device; false where they are not. */
bool probe(Device& device, const char* name) {
  constexpr int64_t COUNT = 1000;
  constexpr size_t BYTES = COUNT * sizeof(float);
  constexpr int SHARED = 100 << 10;
  StreamOwner stream(device);
  PinnedBuffer buffer(device, BYTES);
  if (!say("stream", stream.status()) || !say("pinned", buffer.status())) {
    return false;
  }
  DeviceWorkspace workspace(device, stream.get());
  void* memory = workspace.allocate(BYTES);
  Kernel kernel;
  if (!say("memory", workspace.status()) || !say("before", begin_after_context(device, stream.get())) ||
      !say("kernel", device.kernel(name, SHARED, &kernel))) {
    return false;
  }
  std::printf("registers %d, local %d, shared %d\n", kernel.registers, kernel.local_bytes,
              kernel.dynamic_shared_bytes);
  const ProbeParams params = {reinterpret_cast<uintptr_t>(memory), COUNT, 0.5f};
  const Grid grid = {static_cast<unsigned int>((COUNT + 127) / 128)};
  if (!say("launch", device.launch(kernel, grid, 128, stream.get(), &params)) ||
      !say("copy", device.noted(cuda_status(
                       device.api().copy_to_host(buffer.get(), params.values, BYTES, stream.get()), "copy"))) ||
      !say("after", hold_context_until(device, stream.get())) ||
      !say("wait", device.noted(cuda_status(device.api().stream_synchronize(stream.get()), "cuStreamSynchronize")))) {
    return false;
  }
  for (int64_t i = 0; i < COUNT; i++) {
    if (static_cast<float*>(buffer.get())[i] != 0.5f * static_cast<float>(i)) {
      std::printf("value %lld is %g\n", static_cast<long long>(i), static_cast<float*>(buffer.get())[i]);
      return false;
    }
  }
  std::printf("values: right\n");
  return true;
}

int main_of(int count, char** arguments) {
  const CudaDriver& driver = cuda_driver();
  if (!say("driver", driver.status)) {
    return 1;
  }
  std::printf("version %s, context events %s\n", cuda_version_text(driver.version).c_str(),
              driver.has_context_events() ? "yes" : "no");
  for (const DeviceInfo& info : driver.devices) {
    std::printf("device %d: %s, %d.%d, %zu bytes, %d multiprocessors, %d bytes shared, pools %s\n", info.ordinal,
                info.name.c_str(), info.major, info.minor, info.memory_bytes, info.multiprocessors, info.shared_bytes,
                info.has_memory_pools ? "yes" : "no");
  }
  Device* device = nullptr;
  if (!say("selected", selected_device(&device))) {
    return 1;
  }
  std::printf("ordinal %d\n", device->info().ordinal);
  if (count < 2) {
    return 0;
  }
  const ContextScope scope(*device);
  if (!say("context", scope.status())) {
    return 1;
  }
  const bool is_right = probe(*device, arguments[1]);
  Device* again = nullptr;
  say("again", selected_device(&again));
  return is_right ? 0 : 1;
}

}  // namespace
}  // namespace flash_attention

int main(int count, char** arguments) { return flash_attention::main_of(count, arguments); }
