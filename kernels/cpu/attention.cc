#include "attention.h"

#include <cstring>

#include "instruction_sets.h"
#include "threads.h"

namespace flash_attention {
namespace {

constexpr Status OUT_OF_MEMORY = {
    "out of memory for what the kernels keep beside the tensors; use shorter sequences, a smaller batch or fewer "
    "threads"};

/** Typed memory of a workspace; null where there is none. */
template <typename T>
T* take(Workspace& workspace, int64_t count) {
  return static_cast<T*>(workspace.allocate(static_cast<size_t>(larger_of(1, count)) * sizeof(T)));
}

/** Sets every row to zero: rows that no sequence holds have no task that would write them. */
void clear_rows(const Strides& strides, int64_t batches, int64_t rows, int64_t heads, int64_t size, float* data) {
  for (int64_t batch = 0; batch < batches; batch++) {
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t head = 0; head < heads; head++) {
        float* to = data + strides.base + batch * strides.batch + row * strides.row + head * strides.head;
        std::memset(to, 0, static_cast<size_t>(size) * sizeof(float));
      }
    }
  }
}

void clear_query_rows(const Problem& problem, const Strides& strides, int64_t size, float* data) {
  clear_rows(strides, problem.packed_sequences ? 1 : problem.batch, problem.query_rows, problem.query_heads, size,
             data);
}

void clear_key_rows(const Problem& problem, const Strides& strides, int64_t size, float* data) {
  clear_rows(strides, problem.packed_sequences ? 1 : problem.key_batches, problem.key_rows, problem.key_heads, size,
             data);
}

const Sequence* locate_sequences(const Problem& problem, const Tensors& tensors, Workspace& workspace) {
  Sequence* sequences = take<Sequence>(workspace, problem.batch);
  for (int64_t batch = 0; sequences && batch < problem.batch; batch++) {
    sequences[batch] = sequence_of(problem, tensors, batch);
  }
  return sequences;
}

/** `body(task, worker)` for each task, over threads. */
template <typename Body>
void for_each_task(int64_t tasks, int threads, Body body) {
  run_tasks(
      tasks, threads, [](void* of, int64_t task, int worker) { (*static_cast<Body*>(of))(task, worker); }, &body);
}

/** A kernel's tasks, each worker with scratch memory of its own; false where there is none. */
template <typename Call>
bool run(Workspace& workspace, const Call& call, int64_t tasks, int threads, int64_t scratch,
         void (*kernel)(const Call&, int64_t, void*)) {
  const int64_t workers = larger_of(1, smaller_of(threads, tasks));
  char* const memory = take<char>(workspace, workers * scratch);
  if (!memory) {
    return false;
  }
  for_each_task(tasks, static_cast<int>(workers),
                [&](int64_t task, int worker) { kernel(call, task, memory + worker * scratch); });
  return true;
}

Status forward_with(const Problem& problem, const Tensors& tensors, const ForwardOutputs& outputs,
                    const Sequence* sequences, const ForwardSchedule& schedule, Workspace& workspace, int threads) {
  const Kernels& kernels = current_kernels();
  ForwardCall call = {problem, tensors, outputs, sequences, schedule, {}};
  const int64_t units = problem.batch * schedule.rows.units;
  if (schedule.parts > 1) {
    const int64_t rows = units * schedule.rows.unit_rows * schedule.parts;
    call.partials.output = take<float>(workspace, rows * problem.value_size);
    call.partials.largest = take<float>(workspace, rows);
    call.partials.denominator = take<double>(workspace, rows);
    if (!call.partials.output || !call.partials.largest || !call.partials.denominator) {
      return OUT_OF_MEMORY;
    }
  }
  if (!run(workspace, call, schedule.tasks, threads, kernels.forward_scratch(call), kernels.forward)) {
    return OUT_OF_MEMORY;
  }
  if (schedule.parts > 1) {
    for_each_task(units, threads, [&](int64_t unit, int) { kernels.merge(call, unit); });
  }
  return {};
}

/**
 * The LSE again, rounded as the backward pass rounds its scores: the kernel for few rows sums them in another order,
 * and of a large LSE that is more than weights may be off.
 */
Status lse_again(const Problem& problem, const Tensors& tensors, const Sequence* sequences, Workspace& workspace,
                 int threads, BackwardInputs* inputs) {
  const int64_t batches = problem.packed_sequences ? 1 : problem.batch;
  const int64_t rows = batches * problem.query_rows * problem.query_heads;
  ForwardOutputs outputs;
  outputs.output = take<float>(workspace, rows * problem.value_size);
  outputs.lse = take<float>(workspace, rows);
  outputs.lse_tail = take<float>(workspace, rows);
  if (!outputs.output || !outputs.lse || !outputs.lse_tail) {
    return OUT_OF_MEMORY;
  }
  inputs->lse = outputs.lse;
  inputs->lse_tail = outputs.lse_tail;
  return forward_with(problem, tensors, outputs, sequences, forward_schedule(problem, false), workspace, threads);
}

}  // namespace

Status attention_forward(const Problem& problem, const Tensors& tensors, const ForwardOutputs& outputs,
                         Workspace& workspace, int threads) {
  const Sequence* sequences = locate_sequences(problem, tensors, workspace);
  if (!sequences) {
    return OUT_OF_MEMORY;
  }
  if (problem.packed_sequences) {
    clear_query_rows(problem, problem.output, problem.value_size, outputs.output);
    const Strides rows = {0, problem.lse_batch, 1, problem.lse_head};
    clear_query_rows(problem, rows, 1, outputs.lse);
    clear_query_rows(problem, rows, 1, outputs.lse_tail);
  }
  return forward_with(problem, tensors, outputs, sequences, forward_schedule(problem, true), workspace,
                      threads > 0 ? threads : default_threads());
}

Status attention_backward(const Problem& problem, const Tensors& tensors, const BackwardInputs& given,
                          const Gradients& gradients, Workspace& workspace, int threads) {
  const Kernels& kernels = current_kernels();
  threads = threads > 0 ? threads : default_threads();
  const Sequence* sequences = locate_sequences(problem, tensors, workspace);
  if (!sequences) {
    return OUT_OF_MEMORY;
  }
  if (problem.has_sequences || problem.packed_sequences) {
    if (gradients.d_q) {
      clear_query_rows(problem, problem.q, problem.head_size, gradients.d_q);
    }
    if (gradients.d_k) {
      clear_key_rows(problem, problem.k, problem.head_size, gradients.d_k);
    }
    if (gradients.d_v) {
      clear_key_rows(problem, problem.v, problem.value_size, gradients.d_v);
    }
  }
  BackwardInputs inputs = given;
  if (forward_schedule(problem, true).few_rows) {
    const Status status = lse_again(problem, tensors, sequences, workspace, threads, &inputs);
    if (!status.ok()) {
      return status;
    }
  }
  BackwardCall call = {problem, tensors, inputs, gradients, sequences, backward_schedule(problem), nullptr};
  if (gradients.d_q || gradients.d_k || gradients.d_v) {
    const Rows& rows = call.schedule.rows;
    const int64_t units = problem.batch * rows.units;
    const bool in_parts = gradients.d_q && call.schedule.chunks > 1;
    if (in_parts) {
      call.d_q_parts = take<float>(workspace, units * rows.unit_rows * call.schedule.chunks * problem.head_size);
    }
    if ((in_parts && !call.d_q_parts) ||
        !run(workspace, call, call.schedule.tasks, threads, kernels.backward_scratch(call), kernels.backward)) {
      return OUT_OF_MEMORY;
    }
    if (in_parts) {
      for_each_task(units, threads, [&](int64_t unit, int) { kernels.merge_d_q(call, unit); });
    }
  }
  if (gradients.d_bias &&
      !run(workspace, call, kernels.bias_tasks(call), threads, kernels.bias_scratch(call), kernels.bias)) {
    return OUT_OF_MEMORY;
  }
  return {};
}

}  // namespace flash_attention
