// Where calls on the host's memory are computed: by the kernels for CPUs, or on a CUDA device.
#pragma once

#include <string>
#include <vector>

#include "../cpu/attention.h"
#include "description.h"

namespace flash_attention {

/**
 * Where calls on the host's memory are computed from now on, in the whole process. Opens the driver, but no device.
 * @param name "cpu", "cuda" (the first device that the addon has kernels for) or "cuda:<ordinal>"
 * @param may_use_cpu whether a CPU computes in the place of a device that is lost, busy or full
 * @return what is wrong, empty where nothing is
 */
std::string choose_device(const std::string& name, bool may_use_cpu);

/** As it was chosen; "cpu" to begin with. */
std::string chosen_device();

/** Forward or backward where it was chosen: see run_call.h. */
std::string run_on_chosen_device(const Description& description, const Memory& memory, const Memory& results,
                                 Workspace& workspace);

/** Why a CPU has computed in the place of a device, where that was so since this was last asked; else empty. */
std::string take_notice();

/** A device, and the addon's kernels for it. */
struct DeviceFacts {
  int ordinal;
  std::string name;
  int major, minor;
  double memory_bytes;
  /** "sm_90a", …: what its kernels are, from the list of images; empty where there are none. */
  std::string code;
};

struct CudaFacts {
  /** The CUDA that the driver knows, and the one that made the kernels: "13.0"; empty where there is none. */
  std::string driver, kernels;
  /** Whether the driver orders streams that are not ours without waiting. */
  bool has_context_events = false;
  std::vector<DeviceFacts> devices;
  /** Why no device can be used; empty where one can. */
  std::string problem;
};

/** What there is of CUDA. Opens the driver, but no device. */
CudaFacts cuda_facts();

}  // namespace flash_attention
