// A libcuda.so.1 without a device, for tests of what calls it: FLASH_ATTENTION_LIBCUDA names it. Device memory is the
// host's, counted and checked. A stream does nothing until somebody waits for it, and then no more than must be done:
// so whatever is not ordered as it should be goes wrong every time. FAKE_CUDA sets it up, as in
// "devices=2,major=9,minor=0,version=13000,memory=1000000,pools=0,fail=cuMemHostAlloc:2@3": that fails the third call
// (without @: each) with error 2. "lose=3": the third copy to the device is not made. "pageable=1": copies may be from
// and to memory that is not pinned, which is read and written before the call returns. With FAKE_OLD it is a driver from
// before events of contexts.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/driver_api.h"

using namespace flash_attention;

namespace {

struct Stream;

struct Event {
  /** Place in the stream's work that it stands for. */
  Stream* stream = nullptr;
  uint64_t place = 0;
};

struct Stream {
  std::deque<std::function<void()>> work;
  uint64_t queued = 0, done = 0;
  bool is_running = false;
};

struct Block {
  size_t bytes;
  bool is_host;
};

struct Fake {
  std::recursive_mutex mutex;
  std::map<std::string, std::string> settings;
  std::map<std::string, int> calls;
  std::string log;
  /** What no program should do. */
  std::string violations;
  std::map<uintptr_t, Block> blocks;
  size_t used = 0, peak = 0;
  std::vector<Stream*> streams;
  std::vector<CuContext> current;
  CuResult sticky = 0;
  uint64_t threshold = 0;

  Fake() { configure(std::getenv("FAKE_CUDA")); }

  void configure(const char* text) {
    settings.clear();
    std::string all = text ? text : "";
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find(',', at), all.size());
      const std::string each = all.substr(at, end - at);
      const size_t equals = each.find('=');
      if (equals != std::string::npos) {
        settings[each.substr(0, equals)] = each.substr(equals + 1);
      }
      at = end + 1;
    }
  }

  long long number(const char* name, long long otherwise) const {
    const auto found = settings.find(name);
    return found == settings.end() ? otherwise : std::atoll(found->second.c_str());
  }

  /** Notes a call; gives the error that it is to fail with. */
  CuResult called(const char* name) {
    log += std::string(name) + "\n";
    const int count = ++calls[name];
    if (sticky) {
      return sticky;
    }
    const auto found = settings.find("fail");
    if (found == settings.end() || found->second.compare(0, std::strlen(name) + 1, std::string(name) + ":") != 0) {
      return 0;
    }
    const std::string how = found->second.substr(std::strlen(name) + 1);
    const size_t at = how.find('@');
    if (at != std::string::npos && std::atoi(how.c_str() + at + 1) != count) {
      return 0;
    }
    const CuResult result = std::atoi(how.c_str());
    if (result >= 700) {
      sticky = result;
    }
    return result;
  }

  void wrong(const std::string& what) { violations += what + "\n"; }

  bool is_pinned(const void* memory) const {
    const auto address = reinterpret_cast<uintptr_t>(memory);
    auto found = blocks.upper_bound(address);
    if (found == blocks.begin()) {
      return false;
    }
    --found;
    return found->second.is_host && address < found->first + found->second.bytes;
  }

  void check_range(const void* memory, size_t bytes, bool is_host, const char* what) {
    const auto address = reinterpret_cast<uintptr_t>(memory);
    auto found = blocks.upper_bound(address);
    if (found != blocks.begin()) {
      --found;
      if (address + bytes <= found->first + found->second.bytes && found->second.is_host == is_host) {
        return;
      }
    }
    wrong(std::string(what) + " outside of what was allocated");
  }

  void run_until(Stream* stream, uint64_t place) {
    if (stream->is_running) {
      wrong("a stream that waits for itself");
      return;
    }
    stream->is_running = true;
    while (stream->done < place && !stream->work.empty()) {
      const auto step = std::move(stream->work.front());
      stream->work.pop_front();
      step();
      stream->done++;
    }
    stream->is_running = false;
  }

  void queue(Stream* stream, std::function<void()> step) {
    stream->work.push_back(std::move(step));
    stream->queued++;
  }

  void wait_all() {
    for (Stream* stream : streams) {
      run_until(stream, stream->queued);
    }
  }

  void* take(size_t bytes, bool is_host) {
    if (!is_host && used + bytes > static_cast<size_t>(number("memory", 1ll << 40))) {
      return nullptr;
    }
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xff, bytes);  // NaN
    blocks[reinterpret_cast<uintptr_t>(memory)] = {bytes, is_host};
    if (!is_host) {
      used += bytes;
      peak = std::max(peak, used);
    }
    return memory;
  }

  void give_back(uintptr_t memory, bool is_host) {
    const auto found = blocks.find(memory);
    if (found == blocks.end() || found->second.is_host != is_host) {
      wrong("freed what was not allocated");
      return;
    }
    used -= is_host ? 0 : found->second.bytes;
    blocks.erase(found);
    std::free(reinterpret_cast<void*>(memory));
  }
};

Fake& fake() {
  static auto* it = new Fake;
  return *it;
}

Stream* of(CuStream stream) { return reinterpret_cast<Stream*>(stream); }
Event* of(CuEvent event) { return reinterpret_cast<Event*>(event); }

}  // namespace

#define CALL(name)                                          \
  std::lock_guard<std::recursive_mutex> lock(fake().mutex); \
  if (const CuResult failed = fake().called(#name)) {       \
    return failed;                                          \
  }
#define CURRENT(name)                                     \
  CALL(name)                                              \
  if (fake().current.empty()) {                           \
    fake().wrong(#name " without a current context");     \
    return 201;                                           \
  }
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT CuResult cuInit(unsigned int) { CALL(cuInit) return 0; }
EXPORT CuResult cuDriverGetVersion(int* version) {
  CALL(cuDriverGetVersion)
  *version = static_cast<int>(fake().number("version", 13000));
  return 0;
}
EXPORT CuResult cuGetErrorName(CuResult result, const char** name) {
  static const std::map<CuResult, const char*> names = {
      {2, "CUDA_ERROR_OUT_OF_MEMORY"},   {46, "CUDA_ERROR_DEVICE_UNAVAILABLE"}, {100, "CUDA_ERROR_NO_DEVICE"},
      {200, "CUDA_ERROR_INVALID_IMAGE"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},   {719, "CUDA_ERROR_LAUNCH_FAILED"}};
  const auto found = names.find(result);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? 1 : 0;
}
EXPORT CuResult cuGetErrorString(CuResult, const char** text) {
  *text = "in words";
  return 0;
}
EXPORT CuResult cuDeviceGetCount(int* count) {
  CALL(cuDeviceGetCount)
  *count = static_cast<int>(fake().number("devices", 1));
  return 0;
}
EXPORT CuResult cuDeviceGet(CuDevice* device, int ordinal) { CALL(cuDeviceGet) *device = ordinal + 40; return 0; }
EXPORT CuResult cuDeviceGetName(char* name, int length, CuDevice device) {
  CALL(cuDeviceGetName)
  std::snprintf(name, length, "Fake %d", device - 40);
  return 0;
}
EXPORT CuResult cuDeviceGetAttribute(int* value, int attribute, CuDevice) {
  CALL(cuDeviceGetAttribute)
  const Fake& f = fake();
  *value = attribute == cu::COMPUTE_CAPABILITY_MAJOR            ? static_cast<int>(f.number("major", 9)) :
           attribute == cu::COMPUTE_CAPABILITY_MINOR            ? static_cast<int>(f.number("minor", 0)) :
           attribute == cu::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? 232448 :
           attribute == cu::MEMORY_POOLS_SUPPORTED              ? static_cast<int>(f.number("pools", 1)) :
                                                                  132;
  return 0;
}
EXPORT CuResult cuDeviceTotalMem_v2(size_t* bytes, CuDevice) {
  CALL(cuDeviceTotalMem)
  *bytes = fake().number("memory", 1ll << 40);
  return 0;
}
EXPORT CuResult cuDevicePrimaryCtxRetain(CuContext* context, CuDevice device) {
  CALL(cuDevicePrimaryCtxRetain)
  *context = reinterpret_cast<CuContext>(static_cast<uintptr_t>(device));
  return 0;
}
EXPORT CuResult cuDevicePrimaryCtxRelease_v2(CuDevice) { CALL(cuDevicePrimaryCtxRelease) return 0; }
EXPORT CuResult cuCtxPushCurrent_v2(CuContext context) {
  CALL(cuCtxPushCurrent)
  fake().current.push_back(context);
  return 0;
}
EXPORT CuResult cuCtxPopCurrent_v2(CuContext* context) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  if (fake().current.empty()) {
    fake().wrong("popped more contexts than were pushed");
    return 201;
  }
  *context = fake().current.back();
  fake().current.pop_back();
  return 0;
}
EXPORT CuResult cuCtxSynchronize() { CURRENT(cuCtxSynchronize) fake().wait_all(); return fake().sticky; }
EXPORT CuResult cuMemGetInfo_v2(size_t* free, size_t* total) {
  CURRENT(cuMemGetInfo)
  *total = fake().number("memory", 1ll << 40);
  *free = *total - fake().used;
  return 0;
}
EXPORT CuResult cuModuleLoadData(CuModule* module, const void* image) {
  CURRENT(cuModuleLoadData)
  uint32_t magic;
  std::memcpy(&magic, image, 4);
  if (magic != 0xBA55ED50u) {
    return cu::INVALID_IMAGE;
  }
  *module = reinterpret_cast<CuModule>(const_cast<void*>(image));
  return 0;
}
EXPORT CuResult cuModuleUnload(CuModule) { CURRENT(cuModuleUnload) return 0; }
EXPORT CuResult cuModuleGetFunction(CuFunction* function, CuModule, const char* name) {
  CURRENT(cuModuleGetFunction)
  *function = reinterpret_cast<CuFunction>(new std::string(name));
  return 0;
}
EXPORT CuResult cuFuncGetAttribute(int* value, int attribute, CuFunction) {
  CURRENT(cuFuncGetAttribute)
  *value = attribute == cu::FUNC_MAX_THREADS_PER_BLOCK ? 1024 : attribute == cu::FUNC_NUM_REGS ? 128 : 0;
  return 0;
}
EXPORT CuResult cuFuncSetAttribute(CuFunction, int, int) { CURRENT(cuFuncSetAttribute) return 0; }
EXPORT CuResult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CuFunction, int, size_t) {
  CURRENT(cuOccupancyMaxActiveBlocksPerMultiprocessor)
  *blocks = 1;
  return 0;
}
/** Knows the kernels of probe.cu; others are emulated where the program does that, and else do nothing. */
EXPORT CuResult cuLaunchKernel(CuFunction function, unsigned int x, unsigned int y, unsigned int z,
                               unsigned int threads, unsigned int, unsigned int, unsigned int, CuStream stream,
                               void** parameters, void**) {
  CURRENT(cuLaunchKernel)
  struct Probe {
    float* values;
    int64_t count;
    float factor;
  };
  const std::string& name = *reinterpret_cast<std::string*>(function);
  if (name == "flash_probe_architecture") {
    float* values = static_cast<Probe*>(parameters[0])->values;
    fake().queue(of(stream), [values] { values[0] = 900; });
  } else if (name == "flash_probe") {
    const Probe probe = *static_cast<Probe*>(parameters[0]);
    fake().queue(of(stream), [probe] {
      for (int64_t i = 0; i < probe.count; i++) {
        probe.values[i] = static_cast<float>(i) * probe.factor;
      }
    });
  } else {
    using Emulate = bool (*)(CuStream, const char*, const unsigned int (&)[4], const void*);
    static const auto emulate = reinterpret_cast<Emulate>(dlsym(RTLD_DEFAULT, "emulate_kernel"));
    if (emulate && !emulate(stream, name.c_str(), {x, y, z, threads}, parameters[0])) {
      return 500;
    }
  }
  return 0;
}
/** That of the program which emulates kernels, if it does; the tensor must lie in the device's memory. */
EXPORT CuResult cuTensorMapEncodeTiled(CuTensorMap* map, int type, unsigned int rank, void* address,
                                       const uint64_t* sizes, const uint64_t* strides, const unsigned int* box,
                                       const unsigned int* steps, int interleave, int swizzle, int promotion,
                                       int outside) {
  CURRENT(cuTensorMapEncodeTiled)
  static const auto emulated =
      reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(dlsym(RTLD_DEFAULT, "emulated_tensor_map"));
  fake().check_range(address, strides[rank - 2] * sizes[rank - 1], false, "a tensor map");
  return emulated ? emulated(map, type, rank, address, sizes, strides, box, steps, interleave, swizzle, promotion,
                             outside)
                  : 0;
}
EXPORT CuResult cuStreamCreate(CuStream* stream, unsigned int) {
  CURRENT(cuStreamCreate)
  fake().streams.push_back(new Stream);
  *stream = reinterpret_cast<CuStream>(fake().streams.back());
  return 0;
}
EXPORT CuResult cuStreamDestroy_v2(CuStream stream) {
  CURRENT(cuStreamDestroy)
  fake().run_until(of(stream), of(stream)->queued);  // its work is done, some time
  return 0;
}
EXPORT CuResult cuStreamSynchronize(CuStream stream) {
  CURRENT(cuStreamSynchronize)
  fake().run_until(of(stream), of(stream)->queued);
  return fake().sticky;
}
EXPORT CuResult cuStreamWaitEvent(CuStream stream, CuEvent event, unsigned int) {
  CURRENT(cuStreamWaitEvent)
  const Event as_recorded = *of(event);
  if (!as_recorded.stream) {
    return 0;
  }
  fake().queue(of(stream), [as_recorded] { fake().run_until(as_recorded.stream, as_recorded.place); });
  return 0;
}
EXPORT CuResult cuEventCreate(CuEvent* event, unsigned int) {
  CURRENT(cuEventCreate)
  *event = reinterpret_cast<CuEvent>(new Event);
  return 0;
}
EXPORT CuResult cuEventDestroy_v2(CuEvent event) {
  CURRENT(cuEventDestroy)
  delete of(event);
  return 0;
}
EXPORT CuResult cuEventRecord(CuEvent event, CuStream stream) {
  CURRENT(cuEventRecord)
  *of(event) = {of(stream), of(stream)->queued};
  return 0;
}
EXPORT CuResult cuEventSynchronize(CuEvent event) {
  CURRENT(cuEventSynchronize)
  if (of(event)->stream) {
    fake().run_until(of(event)->stream, of(event)->place);
  }
  return fake().sticky;
}
EXPORT CuResult cuEventElapsedTime(float* milliseconds, CuEvent, CuEvent) {
  CURRENT(cuEventElapsedTime)
  *milliseconds = 1;
  return 0;
}
EXPORT CuResult cuMemAlloc_v2(CuDevicePtr* memory, size_t bytes) {
  CURRENT(cuMemAlloc)
  void* taken = fake().take(bytes, false);
  *memory = reinterpret_cast<uintptr_t>(taken);
  return taken ? 0 : cu::OUT_OF_MEMORY;
}
EXPORT CuResult cuPointerGetAttribute(void* value, int attribute, CuDevicePtr pointer) {
  CALL(cuPointerGetAttribute)
  auto found = fake().blocks.upper_bound(pointer);
  if (attribute != cu::POINTER_DEVICE_ORDINAL || found == fake().blocks.begin()) {
    return 1;
  }
  --found;
  if (found->second.is_host || pointer >= found->first + found->second.bytes) {
    return 1;
  }
  *static_cast<int*>(value) = 0;
  return 0;
}
EXPORT CuResult cuMemFree_v2(CuDevicePtr memory) {
  CURRENT(cuMemFree)
  fake().wait_all();
  fake().give_back(memory, false);
  return 0;
}
EXPORT CuResult cuMemHostAlloc(void** memory, size_t bytes, unsigned int) {
  CURRENT(cuMemHostAlloc)
  *memory = fake().take(bytes, true);
  return 0;
}
EXPORT CuResult cuMemFreeHost(void* memory) {
  CURRENT(cuMemFreeHost)
  fake().wait_all();
  fake().give_back(reinterpret_cast<uintptr_t>(memory), true);
  return 0;
}
EXPORT CuResult cuMemcpyHtoDAsync_v2(CuDevicePtr to, const void* from, size_t bytes, CuStream stream) {
  CURRENT(cuMemcpyHtoDAsync)
  if (fake().calls["cuMemcpyHtoDAsync"] == fake().number("lose", -1)) {
    return 0;
  }
  std::shared_ptr<std::vector<char>> staged;
  if (fake().number("pageable", 0) != 0 && !fake().is_pinned(from)) {
    const char* first = static_cast<const char*>(from);
    staged = std::make_shared<std::vector<char>>(first, first + bytes);
  }
  fake().queue(of(stream), [=] {
    if (staged) {
      fake().check_range(reinterpret_cast<void*>(to), bytes, false, "a copy to the device writes");
      std::memcpy(reinterpret_cast<void*>(to), staged->data(), bytes);
      return;
    }
    fake().check_range(from, bytes, true, "a copy to the device reads");
    fake().check_range(reinterpret_cast<void*>(to), bytes, false, "a copy to the device writes");
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  });
  return 0;
}
EXPORT CuResult cuMemcpyDtoHAsync_v2(void* to, CuDevicePtr from, size_t bytes, CuStream stream) {
  CURRENT(cuMemcpyDtoHAsync)
  if (fake().number("pageable", 0) != 0 && !fake().is_pinned(to)) {
    fake().run_until(of(stream), of(stream)->queued);
    fake().check_range(reinterpret_cast<void*>(from), bytes, false, "a copy to the host reads");
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
    return fake().sticky;
  }
  fake().queue(of(stream), [=] {
    fake().check_range(to, bytes, true, "a copy to the host writes");
    fake().check_range(reinterpret_cast<void*>(from), bytes, false, "a copy to the host reads");
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  });
  return 0;
}
EXPORT CuResult cuMemcpyDtoDAsync_v2(CuDevicePtr to, CuDevicePtr from, size_t bytes, CuStream stream) {
  CURRENT(cuMemcpyDtoDAsync)
  fake().queue(of(stream), [=] {
    fake().check_range(reinterpret_cast<void*>(from), bytes, false, "a copy on the device reads");
    fake().check_range(reinterpret_cast<void*>(to), bytes, false, "a copy on the device writes");
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  });
  return 0;
}
EXPORT CuResult cuMemsetD8Async(CuDevicePtr to, unsigned char value, size_t count, CuStream stream) {
  CURRENT(cuMemsetD8Async)
  fake().queue(of(stream), [=] {
    fake().check_range(reinterpret_cast<void*>(to), count, false, "a fill writes");
    std::memset(reinterpret_cast<void*>(to), value, count);
  });
  return 0;
}
EXPORT CuResult cuMemPoolCreate(CuMemoryPool* pool, const CuMemoryPoolProperties* properties) {
  CURRENT(cuMemPoolCreate)
  static_assert(sizeof(CuMemoryPoolProperties) == 88, "CUmemPoolProps has 88 bytes");
  *pool = reinterpret_cast<CuMemoryPool>(&fake());
  return properties->allocation_type == 1 && properties->location_type == 1 ? 0 : 1;
}
EXPORT CuResult cuMemPoolDestroy(CuMemoryPool) { CURRENT(cuMemPoolDestroy) return 0; }
EXPORT CuResult cuMemPoolSetAttribute(CuMemoryPool, int, void* value) {
  CURRENT(cuMemPoolSetAttribute)
  std::memcpy(&fake().threshold, value, 8);
  return 0;
}
EXPORT CuResult cuMemPoolGetAttribute(CuMemoryPool, int, void* value) {
  CURRENT(cuMemPoolGetAttribute)
  std::memset(value, 0, 8);
  return 0;
}
EXPORT CuResult cuMemPoolTrimTo(CuMemoryPool, size_t) { CURRENT(cuMemPoolTrimTo) return 0; }
EXPORT CuResult cuMemAllocFromPoolAsync(CuDevicePtr* memory, size_t bytes, CuMemoryPool, CuStream) {
  CURRENT(cuMemAllocFromPoolAsync)
  void* taken = fake().take(bytes, false);
  *memory = reinterpret_cast<uintptr_t>(taken);
  return taken ? 0 : cu::OUT_OF_MEMORY;
}
EXPORT CuResult cuMemFreeAsync(CuDevicePtr memory, CuStream stream) {
  CURRENT(cuMemFreeAsync)
  fake().queue(of(stream), [=] { fake().give_back(memory, false); });
  return 0;
}
#ifndef FAKE_OLD
EXPORT CuResult cuCtxRecordEvent(CuContext, CuEvent event) {
  CURRENT(cuCtxRecordEvent)
  // Stands for all streams at once: a stream of its own that waits for each.
  auto* all = new Stream;
  for (Stream* stream : fake().streams) {
    const uint64_t place = stream->queued;
    fake().queue(all, [stream, place] { stream->is_running ? void() : fake().run_until(stream, place); });
  }
  *of(event) = {all, all->queued};
  return 0;
}
EXPORT CuResult cuCtxWaitEvent(CuContext, CuEvent event) {
  CURRENT(cuCtxWaitEvent)
  const Event as_recorded = *of(event);
  for (Stream* stream : fake().streams) {
    if (stream != as_recorded.stream) {
      fake().queue(stream, [as_recorded] { fake().run_until(as_recorded.stream, as_recorded.place); });
    }
  }
  return 0;
}
#endif

/** Queues a function as if it were a kernel. */
EXPORT void fake_cuda_queue(CuStream stream, void (*step)(void*), void* data) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  fake().queue(of(stream), [=] { step(data); });
}
/** Lets all streams get ahead of one. */
EXPORT void fake_cuda_run_but(CuStream stream) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  for (Stream* other : fake().streams) {
    if (other != of(stream)) {
      fake().run_until(other, other->queued);
    }
  }
}
/** Sets it up anew, as FAKE_CUDA does; what is allocated stays. */
EXPORT void fake_cuda_configure(const char* settings) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  fake().configure(settings);
  fake().calls.clear();
  fake().log.clear();
  fake().violations.clear();
  fake().sticky = 0;
  fake().peak = fake().used;
}
EXPORT const char* fake_cuda_log() { return fake().log.c_str(); }
EXPORT const char* fake_cuda_violations() { return fake().violations.c_str(); }
EXPORT size_t fake_cuda_used() { return fake().used; }
EXPORT size_t fake_cuda_peak() { return fake().peak; }
/** Blocks of host memory that are not given back. */
EXPORT size_t fake_cuda_host_blocks() {
  size_t count = 0;
  for (const auto& block : fake().blocks) {
    count += block.second.is_host;
  }
  return count;
}
EXPORT size_t fake_cuda_contexts() { return fake().current.size(); }
