// What of the CUDA driver API is used, declared here so that nothing of CUDA is needed to build. The library is looked
// for when the first call wants it (driver.cc).
#pragma once

#include <cstddef>
#include <cstdint>

namespace flash_attention {

using CuResult = int;
using CuDevice = int;
using CuDevicePtr = unsigned long long;
using CuContext = struct CuContextHandle*;
using CuModule = struct CuModuleHandle*;
using CuFunction = struct CuFunctionHandle*;
using CuStream = struct CuStreamHandle*;
using CuEvent = struct CuEventHandle*;
using CuMemoryPool = struct CuMemoryPoolHandle*;

/** CUmemPoolProps. */
struct CuMemoryPoolProperties {
  int allocation_type;
  int handle_types;
  int location_type;
  int location_id;
  void* win32_security_attributes;
  size_t max_size;
  unsigned char reserved[56];
};

/** CUlaunchConfig; `attributes` are CUlaunchAttribute, which only kernels that need them declare. */
struct CuLaunchConfig {
  unsigned int grid[3], block[3];
  unsigned int shared_bytes;
  CuStream stream;
  void* attributes;
  unsigned int attribute_count;
};

/** CUtensorMap: what a bulk copy of tiles is told of its tensor. */
struct alignas(64) CuTensorMap {
  uint64_t words[16];
};

namespace cu {

constexpr CuResult SUCCESS = 0, OUT_OF_MEMORY = 2, STUB_LIBRARY = 34, DEVICE_UNAVAILABLE = 46, NO_DEVICE = 100,
                   INVALID_DEVICE = 101, INVALID_IMAGE = 200, NO_BINARY_FOR_GPU = 209, ECC_UNCORRECTABLE = 214,
                   INVALID_PTX = 218, NVLINK_UNCORRECTABLE = 220, JIT_COMPILER_NOT_FOUND = 221,
                   UNSUPPORTED_PTX_VERSION = 222, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_TIMEOUT = 702,
                   CONTEXT_IS_DESTROYED = 709, LAUNCH_FAILED = 719, SYSTEM_NOT_READY = 802,
                   SYSTEM_DRIVER_MISMATCH = 803, MPS_FIRST = 805, MPS_LAST = 810;

constexpr int MULTIPROCESSOR_COUNT = 16, L2_CACHE_SIZE = 38, COMPUTE_CAPABILITY_MAJOR = 75,
              COMPUTE_CAPABILITY_MINOR = 76, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97, MEMORY_POOLS_SUPPORTED = 115;
constexpr int FUNC_MAX_THREADS_PER_BLOCK = 0, FUNC_SHARED_SIZE_BYTES = 1, FUNC_LOCAL_SIZE_BYTES = 3, FUNC_NUM_REGS = 4,
              FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
constexpr int MEMPOOL_RELEASE_THRESHOLD = 4, MEMPOOL_RESERVED_CURRENT = 5, MEMPOOL_USED_CURRENT = 7;
constexpr unsigned int STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2, HOST_ALLOC_PORTABLE = 1;
constexpr int ALLOCATION_PINNED = 1, LOCATION_DEVICE = 1, POINTER_DEVICE_ORDINAL = 9;

}  // namespace cu

/** X(symbol, name, parameters). Every driver since 11.2 has these, which is the oldest that knows sm_86. */
#define FLASH_ATTENTION_CUDA_FUNCTIONS(X)                                                                              \
  X(cuInit, init, (unsigned int flags))                                                                               \
  X(cuDriverGetVersion, driver_version, (int* version))                                                               \
  X(cuGetErrorName, error_name, (CuResult result, const char** name))                                                 \
  X(cuGetErrorString, error_string, (CuResult result, const char** text))                                             \
  X(cuDeviceGetCount, device_count, (int* count))                                                                     \
  X(cuDeviceGet, device_get, (CuDevice* device, int ordinal))                                                         \
  X(cuDeviceGetName, device_name, (char* name, int length, CuDevice device))                                          \
  X(cuDeviceGetAttribute, device_attribute, (int* value, int attribute, CuDevice device))                             \
  X(cuDeviceTotalMem_v2, device_memory, (size_t* bytes, CuDevice device))                                             \
  X(cuDevicePrimaryCtxRetain, primary_retain, (CuContext* context, CuDevice device))                                  \
  X(cuDevicePrimaryCtxRelease_v2, primary_release, (CuDevice device))                                                 \
  X(cuCtxPushCurrent_v2, context_push, (CuContext context))                                                           \
  X(cuCtxPopCurrent_v2, context_pop, (CuContext* context))                                                            \
  X(cuCtxSynchronize, context_synchronize, ())                                                                        \
  X(cuMemGetInfo_v2, memory_info, (size_t* free, size_t* total))                                                      \
  X(cuModuleLoadData, module_load, (CuModule* module, const void* image))                                             \
  X(cuModuleUnload, module_unload, (CuModule module))                                                                 \
  X(cuModuleGetFunction, module_function, (CuFunction* function, CuModule module, const char* name))                  \
  X(cuFuncGetAttribute, function_attribute, (int* value, int attribute, CuFunction function))                         \
  X(cuFuncSetAttribute, set_function_attribute, (CuFunction function, int attribute, int value))                      \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, occupancy,                                                           \
    (int* blocks, CuFunction function, int block_size, size_t shared_bytes))                                          \
  X(cuLaunchKernel, launch,                                                                                           \
    (CuFunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,        \
     unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, CuStream stream, void** parameters,       \
     void** extra))                                                                                                   \
  X(cuStreamCreate, stream_create, (CuStream* stream, unsigned int flags))                                            \
  X(cuStreamDestroy_v2, stream_destroy, (CuStream stream))                                                            \
  X(cuStreamSynchronize, stream_synchronize, (CuStream stream))                                                       \
  X(cuStreamWaitEvent, stream_wait_event, (CuStream stream, CuEvent event, unsigned int flags))                       \
  X(cuEventCreate, event_create, (CuEvent* event, unsigned int flags))                                                \
  X(cuEventDestroy_v2, event_destroy, (CuEvent event))                                                                \
  X(cuEventRecord, event_record, (CuEvent event, CuStream stream))                                                    \
  X(cuEventSynchronize, event_synchronize, (CuEvent event))                                                           \
  X(cuEventElapsedTime, event_elapsed, (float* milliseconds, CuEvent start, CuEvent end))                             \
  X(cuMemAlloc_v2, memory_allocate, (CuDevicePtr* memory, size_t bytes))                                              \
  X(cuPointerGetAttribute, pointer_attribute, (void* value, int attribute, CuDevicePtr pointer))                      \
  X(cuMemFree_v2, memory_free, (CuDevicePtr memory))                                                                  \
  X(cuMemHostAlloc, host_allocate, (void** memory, size_t bytes, unsigned int flags))                                 \
  X(cuMemFreeHost, host_free, (void* memory))                                                                         \
  X(cuMemcpyHtoDAsync_v2, copy_to_device, (CuDevicePtr to, const void* from, size_t bytes, CuStream stream))          \
  X(cuMemcpyDtoHAsync_v2, copy_to_host, (void* to, CuDevicePtr from, size_t bytes, CuStream stream))                  \
  X(cuMemcpyDtoDAsync_v2, copy_on_device, (CuDevicePtr to, CuDevicePtr from, size_t bytes, CuStream stream))          \
  X(cuMemsetD8Async, fill_bytes, (CuDevicePtr to, unsigned char value, size_t count, CuStream stream))

/** The same for what is done otherwise, or not at all, where it is missing. */
#define FLASH_ATTENTION_CUDA_OPTIONAL(X)                                                                               \
  X(cuMemPoolCreate, pool_create, (CuMemoryPool* pool, const CuMemoryPoolProperties* properties))                     \
  X(cuMemPoolDestroy, pool_destroy, (CuMemoryPool pool))                                                              \
  X(cuMemPoolSetAttribute, pool_set, (CuMemoryPool pool, int attribute, void* value))                                 \
  X(cuMemPoolGetAttribute, pool_get, (CuMemoryPool pool, int attribute, void* value))                                 \
  X(cuMemPoolTrimTo, pool_trim, (CuMemoryPool pool, size_t bytes_to_keep))                                            \
  X(cuMemAllocFromPoolAsync, pool_allocate,                                                                           \
    (CuDevicePtr* memory, size_t bytes, CuMemoryPool pool, CuStream stream))                                          \
  X(cuMemFreeAsync, pool_free, (CuDevicePtr memory, CuStream stream))                                                 \
  /* 11.8 */                                                                                                          \
  X(cuLaunchKernelEx, launch_with,                                                                                    \
    (const CuLaunchConfig* config, CuFunction function, void** parameters, void** extra))                             \
  /* 12.0 */                                                                                                          \
  X(cuTensorMapEncodeTiled, tensor_map_tiled,                                                                         \
    (CuTensorMap* map, int data_type, unsigned int rank, void* address, const uint64_t* sizes,                        \
     const uint64_t* strides, const unsigned int* box, const unsigned int* element_strides, int interleave,           \
     int swizzle, int l2_promotion, int out_of_bounds_fill))                                                          \
  /* 12.4 */                                                                                                          \
  X(cuCtxRecordEvent, context_record_event, (CuContext context, CuEvent event))                                       \
  X(cuCtxWaitEvent, context_wait_event, (CuContext context, CuEvent event))

/** The functions by their names; of the optional ones those that the driver lacks are null. */
struct DriverApi {
#define FLASH_ATTENTION_DECLARE(symbol, name, parameters) CuResult(*name) parameters = nullptr;
  FLASH_ATTENTION_CUDA_FUNCTIONS(FLASH_ATTENTION_DECLARE)
  FLASH_ATTENTION_CUDA_OPTIONAL(FLASH_ATTENTION_DECLARE)
#undef FLASH_ATTENTION_DECLARE
};

}  // namespace flash_attention
