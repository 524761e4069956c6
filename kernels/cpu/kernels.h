// The kernels as attention.cc calls them, of the instruction set of the file that includes this.
#pragma once

#include "bias_gradient.h"
#include "few_rows.h"

namespace flash_attention {
namespace {

int64_t forward_scratch(const ForwardCall& call) {
  Scratch scratch(nullptr);
  if (call.schedule.few_rows) {
    take_few_rows(scratch, call);
  } else {
    take_forward(scratch, call.problem, call.tensors);
  }
  return scratch.used();
}

void forward(const ForwardCall& call, int64_t task, void* memory) {
  const int64_t part = task % call.schedule.parts;
  const int64_t index = task / call.schedule.parts;
  if (call.schedule.few_rows) {
    const int64_t tasks = call.schedule.rows.units / call.schedule.units_at_once;
    few_rows_task(call, index / tasks, index % tasks * call.schedule.units_at_once, part, memory);
  } else {
    forward_block(call, block_place(call.schedule.rows, index), part, memory);
  }
}

/** `merge` for every row of a unit that is there to be written, with its head and query. Units of all batches count. */
template <typename Call>
void merge_rows(const Call& call, int64_t unit,
                void (*merge)(const Call&, const Sequence&, const BlockPlace&, int64_t, int32_t, int32_t)) {
  const Rows& rows = call.schedule.rows;
  const BlockPlace place = {unit / rows.units, unit % rows.units, 0};
  const Sequence& sequence = call.sequences[place.batch];
  for (int64_t row = 0; row < rows.unit_rows; row++) {
    int32_t head, query;
    locate_row(call.problem, rows, place.unit, row, &head, &query);
    if (query < sequence.query_rows) {
      merge(call, sequence, place, row, head, query);
    }
  }
}

void merge(const ForwardCall& call, int64_t unit) { merge_rows(call, unit, merge_row); }

int64_t backward_scratch(const BackwardCall& call) {
  Scratch scratch(nullptr);
  take_backward(scratch, call);
  return scratch.used();
}

void backward(const BackwardCall& call, int64_t task, void* memory) {
  const int64_t chunk = task % call.schedule.chunks, head = task / call.schedule.chunks;
  backward_chunk(call, head / call.problem.key_heads, head % call.problem.key_heads, chunk, memory);
}

void merge_d_q(const BackwardCall& call, int64_t unit) { merge_rows(call, unit, merge_d_query); }

int64_t bias_scratch(const BackwardCall& call) {
  Scratch scratch(nullptr);
  take_bias(scratch, call);
  return scratch.used();
}

int64_t bias_tasks(const BackwardCall& call) {
  const BiasSchedule schedule = bias_schedule(call.problem);
  return call.problem.bias_shape[0] * call.problem.bias_shape[1] * schedule.query_blocks * schedule.key_chunks;
}

constexpr Kernels kernels_named(const char* name) {
  return {name, forward_scratch, forward, merge, backward_scratch, backward, merge_d_q, bias_scratch, bias_tasks,
          bias_task};
}

}  // namespace
}  // namespace flash_attention
