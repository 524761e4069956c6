// Runs a call of dump_cases.ts, and judges what it gave.
#pragma once

#include <cmath>
#include <functional>
#include <sstream>

#include "call_file.h"

namespace flash_attention {

/** The memory of one run: what calls write is its own. */
struct Run {
  std::vector<CallTensor> tensors;
  std::vector<CallTensor> results;
  std::string error;
};

inline const CallTensor* find(const std::vector<CallTensor>& tensors, int64_t name) {
  for (const CallTensor& tensor : tensors) {
    if (tensor.name == name) {
      return &tensor;
    }
  }
  return nullptr;
}

/** Runs a checked call on the host's memory; gives what went wrong. */
using CallRunner = std::function<std::string(const Description&, const Memory& memory, const Memory& results)>;

/** @param forward of the call before this one; or null, then as the file has it. */
inline Run run_with(const Call& call, const Run* forward, const CallRunner& runner) {
  Run made;
  Description description;
  made.error = read_description(call.description.data(), call.description.size(), &description);
  if (!made.error.empty()) {
    return made;
  }
  Memory memory, results;
  int64_t elements[TENSOR_NAMES] = {};
  const bool is_append = description.kind == CallKind::append;
  for (const CallTensor& tensor : call.tensors) {
    const bool is_written = is_append && (tensor.name == K || tensor.name == V);
    const bool is_saved = tensor.name == OUTPUT || tensor.name == LSE || tensor.name == LSE_TAIL;
    const CallTensor* saved =
        forward && description.kind == CallKind::backward && is_saved ? find(forward->results, tensor.name) : nullptr;
    if (saved && saved->elements != tensor.elements) {
      made.error = "the call before it is not its forward call";
      return made;
    }
    made.tensors.push_back(
        is_written ? CallTensor{tensor.name, tensor.elements, std::make_shared<Block>(*tensor.block)} :
        saved      ? *saved :
                     tensor);
    memory.data[tensor.name] = made.tensors.back().block->data;
    elements[tensor.name] = tensor.elements;
  }
  made.error = check_elements(description, elements);
  if (!made.error.empty()) {
    return made;
  }
  if (is_append) {
    made.error = runner(description, memory, results);
    for (const CallTensor& tensor : made.tensors) {
      if (tensor.name == K || tensor.name == V) {
        made.results.push_back(tensor);
      }
    }
    return made;
  }
  for (const CallResult& result : call.results) {
    made.results.push_back({result.name, result.elements, std::make_shared<Block>(result.elements * sizeof(float))});
    std::memset(made.results.back().block->data, 0x5a, result.elements * sizeof(float));
    results.data[result.name] = made.results.back().block->data;
  }
  made.error = runner(description, memory, results);
  return made;
}

/** Empty, or what is wrong. The rules are those of test/support/error_budget.ts. */
inline std::string compare(const CallResult& result, const float* actual) {
  for (size_t i = 0; i < result.expected.size(); i++) {
    const double expected = result.expected[i], received = actual[i];
    bool ok = std::fabs(received - expected) <= result.tolerance;
    if (!std::isfinite(expected)) {
      ok = result.specials == Specials::finite ? !std::isfinite(received) :
           std::isnan(expected)                ? std::isnan(received) :
                                                 received == expected;
    }
    if (!ok) {
      std::ostringstream text;
      text.precision(9);
      text << tensor_name(static_cast<int>(result.name)) << ", element " << i << " is " << received << ", expected "
           << expected << " ± " << result.tolerance;
      return text.str();
    }
  }
  return "";
}

inline std::string judge(const Call& call, const Run& made) {
  if (!made.error.empty()) {
    return made.error;
  }
  for (size_t n = 0; n < call.results.size(); n++) {
    if (made.results[n].name != call.results[n].name || made.results[n].elements != call.results[n].elements) {
      return "the results are not those of the call";
    }
    const std::string error = compare(call.results[n], static_cast<const float*>(made.results[n].block->data));
    if (!error.empty()) {
      return error;
    }
  }
  return "";
}

inline bool same_bits(const Run& a, const Run& b) {
  for (size_t n = 0; n < a.results.size(); n++) {
    const Block &x = *a.results[n].block, &y = *b.results[n].block;
    if (x.bytes != y.bytes || std::memcmp(x.data, y.data, x.bytes) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace flash_attention
