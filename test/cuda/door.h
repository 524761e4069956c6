// The attention kernels as the runner calls them.
#pragma once

#include <string>

#include "cuda/host_call.h"

#if defined(FLASH_ATTENTION_CPU_DOOR)
#include "cpu_kernels.h"
#else
#include "addon/device_kernels.h"
#include "cuda/attention.h"
#endif

namespace flash_attention {

#if !defined(FLASH_ATTENTION_CPU_DOOR)
inline bool find_compute_type(const std::string& name, cuda::ComputeType* type) {
  using cuda::ComputeType;
  *type = name == "float32"       ? ComputeType::float32 :
          name == "tensorfloat32" ? ComputeType::tensorfloat32 :
          name == "float16"       ? ComputeType::float16 :
                                    ComputeType::bfloat16;
  return name == "float32" || name == "tensorfloat32" || name == "float16" || name == "bfloat16";
}

/** Empty, mma or hopper. */
inline bool find_family(const std::string& name, cuda::Family* family) {
  *family = name == "mma" ? cuda::Family::mma_sync : name == "hopper" ? cuda::Family::hopper : cuda::Family::best;
  return name.empty() || name == "mma" || name == "hopper";
}

/** The kernels of a compute type and a family. */
inline bool find_kernels(const Device& for_device, const std::string& name, const std::string& family_name,
                         HostKernels* kernels) {
  cuda::ComputeType type;
  cuda::Family family;
  if (!find_compute_type(name, &type) || !find_family(family_name, &family)) {
    return false;
  }
  *kernels = device_kernels(for_device, type, family);
  return true;
}

/** The kernels that do a call's work, without those that prepare and repair it, and the parts of its keys. */
inline std::string kernels_of(const Device& device, const std::string& name, const std::string& family,
                              const HostCall& call) {
  cuda::CallKind kind;
  find_compute_type(name, &kind.compute);
  find_family(family, &kind.family);
  kind.has_hopper = has_hopper(device);
  kind.is_backward = call.is_backward;
  kind.may_be_few = !call.is_backward;
  const int multiprocessors = device.info().multiprocessors;
  const cuda::Plan plan =
      call.is_backward
          ? make_backward_plan(call.problem, call.tensors, call.inputs, call.gradients, kind, multiprocessors)
          : make_forward_plan(call.problem, call.tensors, call.outputs, kind, multiprocessors);
  std::string text;
  for (const cuda::Launch& launch : plan.launches) {
    const bool is_hopper = launch.takes == cuda::Launch::Takes::hopper;
    const bool is_helper = launch.takes != cuda::Launch::Takes::params && !is_hopper;
    const std::string of = launch.kernel.substr(is_hopper ? 0 : launch.kernel.find('_') + 1);
    const auto begins = [&](const char* with) { return of.compare(0, std::string(with).size(), with) == 0; };
    if (!is_helper && !begins("locate") && !begins("measure") && !begins("convert") && !begins("row_statistics") &&
        !begins("exact") && !begins("merge")) {
      text += (text.empty() ? "" : " ") + of;
    }
  }
  return text + (plan.params.parts > 1 ? " parts" : "") + (plan.params.heads_per_unit > 1 ? " together" : "");
}
#else
/** For a test of the runner itself. */
inline bool find_kernels(const Device&, const std::string& name, const std::string& family, HostKernels* kernels) {
  *kernels = cpu_kernels();
  return name == "float32" && family.empty();
}

inline std::string kernels_of(const Device&, const std::string&, const std::string&, const HostCall&) {
  return "cpu";
}
#endif

}  // namespace flash_attention
