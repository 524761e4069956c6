#include "driver.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>

namespace flash_attention {
namespace {

/** The oldest that knows sm_86 and memory pools. */
constexpr int OLDEST_DRIVER = 11020;
/** What the pool may hold unused; the rest goes back to the device when a stream is waited for. */
constexpr uint64_t POOL_KEEPS = uint64_t{256} << 20;
/** Dynamic shared memory that a kernel may have without asking. */
constexpr int SHARED_WITHOUT_ASKING = 48 << 10;
constexpr size_t ALIGNMENT = 256;

CudaStatus unavailable(const std::string& text) { return {CudaFailure::unavailable, text}; }

void* open_library(std::string* error) {
  const char* named = std::getenv("FLASH_ATTENTION_LIBCUDA");
  // The second is where WSL has it, and no linker looks.
  const char* const usual[] = {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
  if (named && *named) {
    void* library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      *error = dlerror();
    }
    return library;
  }
  for (const char* name : usual) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
      return library;
    }
    if (error->empty()) {
      *error = dlerror();
    }
  }
  return nullptr;
}

CudaStatus find_functions(void* library, DriverApi* api) {
#define FLASH_ATTENTION_FIND(symbol, name, parameters) \
  api->name = reinterpret_cast<CuResult(*) parameters>(dlsym(library, #symbol));
  FLASH_ATTENTION_CUDA_FUNCTIONS(FLASH_ATTENTION_FIND)
  FLASH_ATTENTION_CUDA_OPTIONAL(FLASH_ATTENTION_FIND)
#undef FLASH_ATTENTION_FIND
#define FLASH_ATTENTION_CHECK(symbol, name, parameters)                                            \
  if (!api->name) {                                                                                \
    return unavailable("the NVIDIA driver has no " #symbol ": install a driver for CUDA 11.2 or newer"); \
  }
  FLASH_ATTENTION_CUDA_FUNCTIONS(FLASH_ATTENTION_CHECK)
#undef FLASH_ATTENTION_CHECK
  return {};
}

CudaStatus status_of(const DriverApi& api, CuResult result, const char* call) {
  if (result == cu::SUCCESS) {
    return {};
  }
  const char* name = nullptr;
  const char* text = nullptr;
  if (api.error_name) {
    api.error_name(result, &name);
  }
  if (api.error_string) {
    api.error_string(result, &text);
  }
  CudaStatus status;
  status.failure = CudaFailure::failed;
  switch (result) {
    case cu::OUT_OF_MEMORY:
      status.failure = CudaFailure::out_of_memory;
      break;
    case cu::DEVICE_UNAVAILABLE:
    case cu::SYSTEM_NOT_READY:
      status.failure = CudaFailure::busy;
      break;
    case cu::STUB_LIBRARY:
    case cu::NO_DEVICE:
    case cu::INVALID_DEVICE:
    case cu::SYSTEM_DRIVER_MISMATCH:
      status.failure = CudaFailure::unavailable;
      break;
    case cu::ECC_UNCORRECTABLE:
    case cu::NVLINK_UNCORRECTABLE:
    case cu::ILLEGAL_ADDRESS:
    case cu::LAUNCH_TIMEOUT:
    case cu::CONTEXT_IS_DESTROYED:
      status.failure = CudaFailure::device_lost;
      break;
    default:
      // 714 to 719: what a kernel did wrong. All of them leave the context unusable.
      if (result >= 714 && result <= cu::LAUNCH_FAILED) {
        status.failure = CudaFailure::device_lost;
      } else if (result >= cu::MPS_FIRST && result <= cu::MPS_LAST) {
        status.failure = CudaFailure::busy;
      }
  }
  status.text = std::string(call) + ": " + (name ? name : "error " + std::to_string(result)) +
                (text ? std::string(" (") + text + ")" : "");
  return status;
}

CudaStatus describe_device(const DriverApi& api, int ordinal, DeviceInfo* info) {
  CuDevice device = 0;
  char name[256] = "";
  info->ordinal = ordinal;
  CuResult result = api.device_get(&device, ordinal);
  if (result == cu::SUCCESS) {
    result = api.device_name(name, sizeof(name), device);
  }
  if (result == cu::SUCCESS) {
    result = api.device_memory(&info->memory_bytes, device);
  }
  int pools = 0;
  const struct {
    int attribute;
    int* value;
  } attributes[] = {{cu::COMPUTE_CAPABILITY_MAJOR, &info->major},
                    {cu::COMPUTE_CAPABILITY_MINOR, &info->minor},
                    {cu::MULTIPROCESSOR_COUNT, &info->multiprocessors},
                    {cu::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &info->shared_bytes},
                    {cu::L2_CACHE_SIZE, &info->l2_bytes},
                    {cu::MEMORY_POOLS_SUPPORTED, &pools}};
  for (const auto& each : attributes) {
    if (result == cu::SUCCESS) {
      result = api.device_attribute(each.value, each.attribute, device);
    }
  }
  info->name = name;
  info->has_memory_pools = pools != 0 && api.pool_create && api.pool_set && api.pool_get && api.pool_trim &&
                           api.pool_allocate && api.pool_free;
  return status_of(api, result, "reading the attributes of a CUDA device");
}

void open_driver(CudaDriver* driver) {
  std::string error;
  void* library = open_library(&error);
  if (!library) {
    driver->status = unavailable("no NVIDIA driver is installed (" + error + ")");
    return;
  }
  // Never closed: the driver has threads of its own.
  driver->status = find_functions(library, &driver->api);
  if (!driver->status.ok()) {
    return;
  }
  driver->status = status_of(driver->api, driver->api.driver_version(&driver->version), "cuDriverGetVersion");
  if (driver->status.ok() && driver->version < OLDEST_DRIVER) {
    driver->status = unavailable("the NVIDIA driver is one for CUDA " + cuda_version_text(driver->version) +
                                 ": install one for CUDA 11.2 or newer");
  }
  if (driver->status.ok()) {
    driver->status = status_of(driver->api, driver->api.init(0), "cuInit");
  }
  int count = 0;
  if (driver->status.ok()) {
    driver->status = status_of(driver->api, driver->api.device_count(&count), "cuDeviceGetCount");
  }
  if (driver->status.ok() && count == 0) {
    driver->status = unavailable("the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES may hide them)");
  }
  for (int ordinal = 0; driver->status.ok() && ordinal < count; ordinal++) {
    DeviceInfo info;
    driver->status = describe_device(driver->api, ordinal, &info);
    driver->devices.push_back(info);
  }
  if (!driver->status.ok()) {
    driver->devices.clear();
  }
}

std::string device_text(const DeviceInfo& info) {
  return "CUDA device " + std::to_string(info.ordinal) + " (" + info.name + ", compute capability " +
         std::to_string(info.major) + "." + std::to_string(info.minor) + ")";
}

/** Held while a device is opened. Neither it nor the devices are ever destroyed: other threads may outlive main. */
std::mutex& devices_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

constexpr int NOT_CHOSEN = -1;
std::atomic<int> chosen_device{NOT_CHOSEN};

CudaStatus check_ordinal(int ordinal, const char* source) {
  const CudaDriver& driver = cuda_driver();
  if (!driver.status.ok()) {
    return driver.status;
  }
  if (ordinal < 0 || ordinal >= static_cast<int>(driver.devices.size())) {
    return unavailable(std::string("expected ") + source + " from 0 to " +
                       std::to_string(driver.devices.size() - 1) + ", the devices that are there, received " +
                       std::to_string(ordinal));
  }
  return {};
}

}  // namespace

const CudaDriver& cuda_driver() {
  static const CudaDriver& driver = *[] {
    auto* opened = new CudaDriver;
    open_driver(opened);
    return opened;
  }();
  return driver;
}

CudaStatus cuda_status(CuResult result, const char* call) { return status_of(cuda_driver().api, result, call); }

std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

CudaStatus Device::open(int ordinal, Device** device) {
  const CudaDriver& driver = cuda_driver();
  CudaStatus status = check_ordinal(ordinal, "a CUDA device");
  if (!status.ok()) {
    return status;
  }
  static auto* opened = new std::map<int, Device*>;
  std::lock_guard<std::mutex> lock(devices_mutex());
  Device*& known = (*opened)[ordinal];
  if (!known) {
    const DeviceInfo& info = driver.devices[ordinal];
    CuDevice handle = 0;
    status = cuda_status(driver.api.device_get(&handle, ordinal), "cuDeviceGet");
    CuContext context = nullptr;
    if (status.ok()) {
      status = cuda_status(driver.api.primary_retain(&context, handle), "cuDevicePrimaryCtxRetain");
    }
    if (!status.ok()) {
      status.text = device_text(info) + " cannot be used: " + status.text;
      return status;
    }
    known = new Device(info, context);
  }
  std::lock_guard<std::mutex> of_device(known->mutex_);
  if (!known->lost_.empty()) {
    return {CudaFailure::device_lost, device_text(known->info_) + " was lost to this process: " + known->lost_ +
                                          ". Start the process again to use it"};
  }
  *device = known;
  return {};
}

CudaStatus Device::noted(CudaStatus status) {
  if (status.failure == CudaFailure::device_lost) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (lost_.empty()) {
      lost_ = status.text;
    }
  }
  return status;
}

bool Device::has_kernel(const char* name) const {
  const Images& images = embedded_images();
  const int unit = unit_of(images, name);
  return unit >= 0 && pick_image(images, unit, info_.major, info_.minor);
}

CudaStatus Device::load(int unit, CuModule* module) {
  const Images& images = embedded_images();
  const auto known = modules_.find(unit);
  if (known != modules_.end()) {
    *module = known->second;
    return {};
  }
  const Image* image = pick_image(images, unit, info_.major, info_.minor);
  if (!image) {
    return unavailable(device_text(info_) + " has no kernels in this addon");
  }
  const CuResult result = api().module_load(module, image->data);
  CudaStatus status = cuda_status(result, "cuModuleLoadData");
  const bool is_image = result == cu::INVALID_IMAGE || result == cu::NO_BINARY_FOR_GPU || result == cu::INVALID_PTX ||
                        result == cu::UNSUPPORTED_PTX_VERSION || result == cu::JIT_COMPILER_NOT_FOUND;
  if (is_image) {
    status.failure = CudaFailure::unavailable;
    const int version = cuda_driver().version;
    if (version / 1000 < images.toolkit / 1000) {
      status.text += ": the driver is one for CUDA " + cuda_version_text(version) +
                     " and the kernels were made with CUDA " + cuda_version_text(images.toolkit) +
                     "; install a newer driver";
    }
  }
  if (status.ok()) {
    modules_[unit] = *module;
  }
  return status;
}

CudaStatus Device::kernel(const char* name, int dynamic_shared_bytes, Kernel* kernel) {
  std::lock_guard<std::mutex> lock(mutex_);
  Kernel& known = kernels_[name];
  if (!known.function) {
    const int unit = unit_of(embedded_images(), name);
    if (unit < 0) {
      return unavailable(std::string("there is no kernel ") + name + " in this addon");
    }
    CuModule module = nullptr;
    CudaStatus status = load(unit, &module);
    if (!status.ok()) {
      return status;
    }
    CuFunction function = nullptr;
    status = cuda_status(api().module_function(&function, module, name), "cuModuleGetFunction");
    if (!status.ok()) {
      status.text += std::string(" for ") + name;
      return status;
    }
    const struct {
      int attribute;
      int* value;
    } attributes[] = {{cu::FUNC_NUM_REGS, &known.registers},
                      {cu::FUNC_LOCAL_SIZE_BYTES, &known.local_bytes},
                      {cu::FUNC_SHARED_SIZE_BYTES, &known.shared_bytes},
                      {cu::FUNC_MAX_THREADS_PER_BLOCK, &known.most_threads}};
    for (const auto& each : attributes) {
      status = cuda_status(api().function_attribute(each.value, each.attribute, function), "cuFuncGetAttribute");
      if (!status.ok()) {
        return status;
      }
    }
    known.dynamic_shared_bytes = SHARED_WITHOUT_ASKING - known.shared_bytes;
    known.function = function;
  }
  if (dynamic_shared_bytes > known.dynamic_shared_bytes) {
    if (dynamic_shared_bytes + known.shared_bytes > info_.shared_bytes) {
      return {CudaFailure::failed, std::string(name) + " wants " +
                                       std::to_string(dynamic_shared_bytes + known.shared_bytes) +
                                       " bytes of shared memory, and " + device_text(info_) + " has " +
                                       std::to_string(info_.shared_bytes)};
    }
    const CudaStatus status = cuda_status(
        api().set_function_attribute(known.function, cu::FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_shared_bytes),
        "cuFuncSetAttribute");
    if (!status.ok()) {
      return status;
    }
    known.dynamic_shared_bytes = dynamic_shared_bytes;
  }
  *kernel = known;
  kernel->dynamic_shared_bytes = dynamic_shared_bytes;
  return {};
}

CudaStatus Device::launch(const Kernel& kernel, Grid grid, unsigned int threads, CuStream stream,
                          const void* parameters) {
  void* pointers[] = {const_cast<void*>(parameters)};
  return noted(cuda_status(
      api().launch(kernel.function, grid.x, grid.y, grid.z, threads, 1, 1,
                   static_cast<unsigned int>(kernel.dynamic_shared_bytes), stream, pointers, nullptr),
      "cuLaunchKernel"));
}

CudaStatus Device::free_memory(size_t* bytes) {
  size_t total = 0;
  const CudaStatus status = noted(cuda_status(api().memory_info(bytes, &total), "cuMemGetInfo"));
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t reserved = 0, used = 0;
  if (status.ok() && pool_ && api().pool_get(pool_, cu::MEMPOOL_RESERVED_CURRENT, &reserved) == cu::SUCCESS &&
      api().pool_get(pool_, cu::MEMPOOL_USED_CURRENT, &used) == cu::SUCCESS && used < reserved) {
    *bytes += reserved - used;
  }
  return status;
}

CudaStatus Device::allocate(size_t bytes, CuStream stream, CuDevicePtr* memory) {
  bytes = (bytes == 0 ? ALIGNMENT : bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (info_.has_memory_pools) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_pool_tried_) {
      // Of our own: the device's default pool is TensorFlow's to set up.
      CuMemoryPoolProperties properties = {};
      properties.allocation_type = cu::ALLOCATION_PINNED;
      properties.location_type = cu::LOCATION_DEVICE;
      properties.location_id = info_.ordinal;
      uint64_t keeps = POOL_KEEPS;
      if (api().pool_create(&pool_, &properties) == cu::SUCCESS) {
        api().pool_set(pool_, cu::MEMPOOL_RELEASE_THRESHOLD, &keeps);
      } else {
        pool_ = nullptr;
      }
      is_pool_tried_ = true;
    }
  }
  const auto attempt = [&] {
    return pool_ ? api().pool_allocate(memory, bytes, pool_, stream) : api().memory_allocate(memory, bytes);
  };
  CuResult result = attempt();
  if (result == cu::OUT_OF_MEMORY && pool_) {
    // What other calls have freed may be waiting for its stream.
    api().stream_synchronize(stream);
    trim();
    result = attempt();
  }
  CudaStatus status = noted(cuda_status(result, pool_ ? "cuMemAllocFromPoolAsync" : "cuMemAlloc"));
  if (!status.ok()) {
    status.text = std::to_string(bytes) + " bytes on " + device_text(info_) + ": " + status.text;
  }
  return status;
}

CudaStatus Device::release(CuDevicePtr memory, CuStream stream) {
  // cuMemFree waits for all that the device has been given to do, so no order is needed.
  return noted(pool_ ? cuda_status(api().pool_free(memory, stream), "cuMemFreeAsync")
                     : cuda_status(api().memory_free(memory), "cuMemFree"));
}

void Device::trim() {
  if (pool_) {
    api().pool_trim(pool_, 0);
  }
}

ContextScope::ContextScope(Device& device)
    : api_(device.api()), status_(device.noted(cuda_status(api_.context_push(device.context()), "cuCtxPushCurrent"))) {}

ContextScope::~ContextScope() {
  if (status_.ok()) {
    CuContext context = nullptr;
    api_.context_pop(&context);
  }
}

CudaStatus selected_device(Device** device) {
  const CudaDriver& driver = cuda_driver();
  if (!driver.status.ok()) {
    return driver.status;
  }
  int ordinal = chosen_device;
  const char* named = std::getenv("FLASH_ATTENTION_CUDA_DEVICE");
  if (ordinal == NOT_CHOSEN && named && *named) {
    char* end = nullptr;
    const long value = std::strtol(named, &end, 10);
    if (*end != '\0' || value < 0 || value > INT32_MAX) {
      return unavailable(std::string("expected a number for FLASH_ATTENTION_CUDA_DEVICE, received ") + named);
    }
    const CudaStatus status = check_ordinal(static_cast<int>(value), "FLASH_ATTENTION_CUDA_DEVICE");
    if (!status.ok()) {
      return status;
    }
    ordinal = static_cast<int>(value);
  }
  if (ordinal == NOT_CHOSEN) {
    if (embedded_images().toolkit == 0) {
      return unavailable("this addon was built without CUDA kernels");
    }
    std::string seen;
    for (const DeviceInfo& info : driver.devices) {
      if (serves(embedded_images(), info.major, info.minor)) {
        return Device::open(info.ordinal, device);
      }
      seen += (seen.empty() ? "" : ", ") + device_text(info);
    }
    return unavailable("this addon has kernels for none of " + seen);
  }
  return Device::open(ordinal, device);
}

CudaStatus select_device(int ordinal) {
  const CudaStatus status = ordinal == NOT_CHOSEN ? CudaStatus{} : check_ordinal(ordinal, "a CUDA device");
  if (status.ok()) {
    chosen_device = ordinal;
  }
  return status;
}

}  // namespace flash_attention
