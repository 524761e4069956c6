#include "device_call.h"

#include <atomic>
#include <mutex>
#include <set>

#include "../cuda/host_call.h"
#include "../cuda/images.h"
#include "described_call.h"
#include "device_kernels.h"
#include "run_call.h"

namespace flash_attention {
namespace {

constexpr int ANY_DEVICE = -1;
constexpr size_t MOST_DIGITS = 6;

enum class Place { cpu, cuda, cuda_or_cpu };

std::atomic<Place> place{Place::cpu};
std::atomic<int> chosen_ordinal{ANY_DEVICE};
std::atomic<bool> has_notice{false};
std::mutex notice_mutex;

std::string& notice() {
  static auto* text = new std::string;
  return *text;
}

/** Reads "cuda" or "cuda:<ordinal>". */
bool read_ordinal(const std::string& name, int* ordinal) {
  const std::string digits = name.size() > 5 ? name.substr(5) : "";
  *ordinal = ANY_DEVICE;
  if (name == "cuda") {
    return true;
  }
  if (name.compare(0, 5, "cuda:") != 0 || digits.empty() || digits.size() > MOST_DIGITS ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return false;
  }
  *ordinal = std::stoi(digits);
  return true;
}

/** sm_90a of an image. */
std::string code_of(const Image& image) {
  const std::string number = std::to_string(image.major * 10 + image.minor);
  return image.kind == ImageKind::ptx ? "compute_" + number
                                      : "sm_" + number + (image.kind == ImageKind::exact ? "a" : "");
}

std::string codes_for(const DeviceInfo& info) {
  const Images& images = embedded_images();
  std::set<std::string> codes;
  for (int unit = 0; unit < images.units; unit++) {
    if (const Image* image = pick_image(images, unit, info.major, info.minor)) {
      codes.insert(code_of(*image));
    }
  }
  std::string text;
  for (const std::string& code : codes) {
    text += (text.empty() ? "" : ", ") + code;
  }
  return text;
}

/** Why the addon cannot use a device, or any; empty where it can. */
std::string problem_of(const CudaFacts& facts, int ordinal) {
  if (!facts.problem.empty() && (ordinal == ANY_DEVICE || facts.devices.empty() || facts.kernels.empty())) {
    return facts.problem;
  }
  const int count = static_cast<int>(facts.devices.size());
  if (ordinal >= count) {
    return "the devices are cuda:0" + (count > 1 ? " to cuda:" + std::to_string(count - 1) : std::string());
  }
  return ordinal != ANY_DEVICE && facts.devices[ordinal].code.empty()
             ? "this addon has no kernels for " + facts.devices[ordinal].name
             : "";
}

}  // namespace

CudaFacts cuda_facts() {
  CudaFacts facts;
  const int toolkit = embedded_images().toolkit;
  facts.kernels = toolkit > 0 ? cuda_version_text(toolkit) : "";
  const CudaDriver& driver = cuda_driver();
  facts.driver = driver.version > 0 ? cuda_version_text(driver.version) : "";
  facts.has_context_events = driver.has_context_events();
  std::string unserved;
  bool is_served = false;
  for (const DeviceInfo& info : driver.devices) {
    facts.devices.push_back({info.ordinal, info.name, info.major, info.minor, static_cast<double>(info.memory_bytes),
                             codes_for(info)});
    is_served = is_served || !facts.devices.back().code.empty();
    unserved += (unserved.empty() ? "" : ", ") + info.name;
  }
  if (toolkit == 0) {
    facts.problem = "this addon was built without CUDA kernels";
  } else if (!driver.status.ok()) {
    facts.problem = driver.status.text;
  } else if (!is_served) {
    facts.problem = "this addon has kernels for none of " + unserved;
  }
  return facts;
}

std::string choose_device(const std::string& name, bool may_use_cpu) {
  if (name == "cpu") {
    place = Place::cpu;
    return "";
  }
  int ordinal = ANY_DEVICE;
  if (!read_ordinal(name, &ordinal)) {
    return "expected 'cpu', 'cuda' or 'cuda:<number>' for device, received '" + name + "'";
  }
  std::string problem = problem_of(cuda_facts(), ordinal);
  if (problem.empty()) {
    problem = select_device(ordinal).text;
  }
  if (!problem.empty()) {
    return "expected a CUDA device that the addon can use for device, received '" + name + "': " + problem;
  }
  chosen_ordinal = ordinal;
  place = may_use_cpu ? Place::cuda_or_cpu : Place::cuda;
  return "";
}

std::string chosen_device() {
  const int ordinal = chosen_ordinal;
  return place == Place::cpu ? "cpu" : ordinal == ANY_DEVICE ? "cuda" : "cuda:" + std::to_string(ordinal);
}

std::string run_on_chosen_device(const Description& d, const Memory& memory, const Memory& results,
                                 Workspace& workspace) {
  const Place where = place;
  const bool is_empty = d.kind == CallKind::forward && d.output_elements() == 0;
  if (where == Place::cpu || is_empty) {
    return run_attention(d, memory, results, workspace);
  }
  const auto kernels = [&d](const Device& device) { return device_kernels(device, d.compute_type); };
  const auto on_failure = where == Place::cuda ? OnCudaFailure::error : OnCudaFailure::cpu;
  std::string used_cpu;
  const std::string error = run_host_call_or_cpu(host_call(d, memory, results), kernels, {}, on_failure, workspace,
                                                 threads(), &used_cpu);
  CallCounts& counts = call_counts();
  (d.kind == CallKind::forward ? counts.forward : counts.backward)++;
  if (!used_cpu.empty()) {
    counts.in_place_of_cuda++;
    const std::lock_guard<std::mutex> lock(notice_mutex);
    notice() = used_cpu;
    has_notice = true;
  } else if (error.empty()) {
    counts.cuda++;
  }
  return error;
}

std::string take_notice() {
  if (!has_notice.exchange(false)) {
    return "";
  }
  const std::lock_guard<std::mutex> lock(notice_mutex);
  return notice();
}

}  // namespace flash_attention
