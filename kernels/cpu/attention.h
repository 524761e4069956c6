// Attention on CPUs: the only header of this folder that others include.
#pragma once

#include <cstddef>

#include "problem.h"

namespace flash_attention {

/** What became of a call. `text` is a literal: empty where all is well. */
struct Status {
  const char* text = "";
  bool ok() const { return *text == '\0'; }
};

/** Where a call takes its memory from, and gives it back when the call is over. Called from one thread. */
class Workspace {
 public:
  virtual ~Workspace() = default;
  /** `bytes` aligned to 64, or null where there are none. */
  virtual void* allocate(size_t bytes) = 0;
};

/**
 * Exact attention in float32 with the online softmax (Dao, FlashAttention-2, 2023), in O(Nq + Nk) memory. The same bits
 * for any number of threads. `threads`: how many may work on it, this one included; 0 for {@link default_threads}.
 */
Status attention_forward(const Problem& problem, const Tensors& tensors, const ForwardOutputs& outputs,
                         Workspace& workspace, int threads);

/** The gradients that are asked for, likewise. Not for calls over pages. */
Status attention_backward(const Problem& problem, const Tensors& tensors, const BackwardInputs& inputs,
                          const Gradients& gradients, Workspace& workspace, int threads);

/**
 * Writes new keys and values into a cache, where `tensors.sequences` says (and `tensors.block_table`, with pages). The
 * new keys are `tensors.q` and lie as q does, the new values as the output.
 */
void append_to_cache(const Problem& problem, const Tensors& tensors, const float* new_values, float* k, float* v);

/** CPUs that this process may use (its affinity, its control group's quota), at least 1. */
int default_threads();

/** Ends the threads that calls have left waiting for the next; they start again when needed. */
void stop_threads();

/** Instruction sets that the kernels are built for and this CPU has, the best first: "avx512", "avx2", "portable". */
const char* instruction_set();

/** Makes calls use another of them; false where it is not built or the CPU lacks it. For tests and benchmarks. */
bool force_instruction_set(const char* name);

}  // namespace flash_attention
