// Attention on host memory by a CUDA device: copies through pinned memory that overlap with the kernels, in pieces, so
// that the device's memory is never exceeded.
#pragma once

#include <functional>
#include <string>

#include "../cpu/attention.h"
#include "driver.h"
#include "pieces.h"

namespace flash_attention {

/**
 * The kernels: `call` has pointers to device memory. They queue their work on `stream` and take memory from
 * `workspace`, which is in the order of that stream.
 */
struct HostKernels {
  std::function<CudaStatus(Device& device, const HostCall& call, Workspace& workspace, CuStream stream)> run;
  WorkspaceBytes workspace_bytes;
};

/** The kernels for a device. */
using KernelsOfDevice = std::function<HostKernels(const Device&)>;

struct HostCallOptions {
  /** Most bytes of device memory; 0: what is free, less a reserve for others. */
  int64_t limit = 0;
  /** Of each of four pinned buffers. */
  int64_t staging_bytes = int64_t{16} << 20;
};

/** What was done, for reports and tests. */
struct HostCallReport {
  int64_t pieces = 0, device_bytes = 0, workspace_bytes = 0;
  /** Times that it began again with less memory, because others had taken theirs. */
  int attempts = 0;
};

/** Runs the call; its results are complete when it returns. Safe to call from several threads. */
CudaStatus run_host_call(Device& device, const HostCall& call, const HostKernels& kernels,
                         const HostCallOptions& options, HostCallReport* report = nullptr);

/** What a call does when the device cannot: it is not there, busy, lost, or out of memory. */
enum class OnCudaFailure { error, cpu };

/**
 * The same on the selected device (driver.h), or by the kernels for CPUs where that fails and `on_failure` allows it.
 * @param used_cpu set to why, where the CPU computed
 * @return empty, or what is wrong
 */
std::string run_host_call_or_cpu(const HostCall& call, const KernelsOfDevice& kernels, const HostCallOptions& options,
                                 OnCudaFailure on_failure, Workspace& host_workspace, int threads,
                                 std::string* used_cpu = nullptr);

/** Gives back the pinned memory that calls have left for the next. */
void release_staging();

}  // namespace flash_attention
