// A call as it comes through a door of the addon: an array of doubles, which src/backends/native/description.ts makes
// and nothing here trusts. Knows neither Node nor TensorFlow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../cpu/problem.h"
#include "../cuda/plan.h"

namespace flash_attention {

/** Changes with every change of the array, so that an addon of another version is told apart. */
constexpr int DESCRIPTION_FORMAT = 3;
constexpr size_t DESCRIPTION_SIZE = 67;

/** The tensors of a call, in the order in which they are handed over. Also the numbers of the bits that name them. */
enum TensorName : int {
  Q, K, V, QKV, KV, MASK, BIAS, ALIBI_SLOPES, SINKS, SEQUENCES, BLOCK_TABLE, OUTPUT, LSE, LSE_TAIL, D_OUTPUT, D_LSE,
  TENSOR_NAMES
};

enum class ElementType { float32, int32, boolean };

ElementType element_type(int name);
const char* tensor_name(int name);

/** APPEND: q holds new keys, `output` new values, k and v the cache that they are written into. */
enum class CallKind { forward, backward, append };

struct Description {
  CallKind kind = CallKind::forward;
  Problem problem;
  /** The least precision that the call allows inside; the kernels for CPUs do better: float32. */
  cuda::ComputeType compute_type = cuda::ComputeType::float32;
  /** Bits of the tensors that are there, and of those whose gradient is wanted. */
  uint32_t present = 0;
  uint32_t wanted = 0;
  int output_rank = 0;
  int64_t output_shape[4] = {};
  int lse_rank = 0;
  int64_t lse_shape[3] = {};

  bool has(int name) const { return present >> name & 1; }
  bool wants(int name) const { return wanted >> name & 1; }
  int tensors() const { return __builtin_popcount(present); }
  int gradients() const { return __builtin_popcount(wanted); }
  int64_t output_elements() const;
  int64_t lse_elements() const;
};

/**
 * Fills `description` in from `count` numbers and checks them against each other.
 * @return what is wrong, empty where nothing is.
 */
std::string read_description(const double* values, size_t count, Description* description);

/**
 * Checks that every element which the description can reach lies in its tensor.
 * @param elements of each tensor that is there, by its name.
 */
std::string check_elements(const Description& description, const int64_t elements[TENSOR_NAMES]);

/** The memory of each tensor, by its name; what is not there is not read. */
struct Memory {
  void* data[TENSOR_NAMES] = {};
};

Tensors tensors_of(const Description& description, const Memory& memory);
BackwardInputs backward_inputs_of(const Description& description, const Memory& memory);

/** @param gradients memory of each gradient that is wanted, by the name of what it is the gradient of. */
Gradients gradients_of(const Description& description, const Memory& gradients);

}  // namespace flash_attention
