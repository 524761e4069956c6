// What attention.cc asks of the kernels, which are built once for each instruction set (isa_*.cc).
#pragma once

#include "attention.h"
#include "schedule.h"

namespace flash_attention {

/** Results of one part of the keys: rows of O times their denominators, running maxima and denominators. */
struct Partials {
  float* output;
  float* largest;
  double* denominator;
};

struct ForwardCall {
  const Problem& problem;
  const Tensors& tensors;
  const ForwardOutputs& outputs;
  const Sequence* sequences;
  ForwardSchedule schedule;
  /** Where there are several parts: rows of all parts of a unit's row together, see `partial_row`. */
  Partials partials;
};

struct BackwardCall {
  const Problem& problem;
  const Tensors& tensors;
  const BackwardInputs& inputs;
  const Gradients& gradients;
  const Sequence* sequences;
  BackwardSchedule schedule;
  /** Where there are several chunks: what each adds to dQ, rows of [D] as `partial_row` orders them. */
  float* d_q_parts;
};

/** Each of these works on one task, in memory of its own of the size that its `_scratch` says. */
struct Kernels {
  const char* name;
  int64_t (*forward_scratch)(const ForwardCall&);
  void (*forward)(const ForwardCall&, int64_t task, void* scratch);
  /** Joins the parts of one unit. */
  void (*merge)(const ForwardCall&, int64_t unit);
  int64_t (*backward_scratch)(const BackwardCall&);
  void (*backward)(const BackwardCall&, int64_t task, void* scratch);
  /** Sums the chunks' dQ of one unit. */
  void (*merge_d_q)(const BackwardCall&, int64_t unit);
  int64_t (*bias_scratch)(const BackwardCall&);
  int64_t (*bias_tasks)(const BackwardCall&);
  void (*bias)(const BackwardCall&, int64_t task, void* scratch);
};

/** The sets that are built; null where this build has none. */
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

}  // namespace flash_attention
