#include "run_call.h"

namespace flash_attention {
namespace {

std::atomic<int> chosen_threads{0};

}  // namespace

CallCounts& call_counts() {
  static CallCounts counts;
  return counts;
}

void set_threads(int threads) { chosen_threads = threads; }

int threads() { return chosen_threads; }

std::string run_attention(const Description& d, const Memory& memory, const Memory& results, Workspace& workspace) {
  const Tensors tensors = tensors_of(d, memory);
  Status status;
  if (d.kind == CallKind::forward) {
    if (d.output_elements() > 0) {
      const ForwardOutputs outputs = {static_cast<float*>(results.data[OUTPUT]), static_cast<float*>(results.data[LSE]),
                                      static_cast<float*>(results.data[LSE_TAIL])};
      status = attention_forward(d.problem, tensors, outputs, workspace, threads());
    }
    call_counts().forward++;
  } else {
    status = attention_backward(d.problem, tensors, backward_inputs_of(d, memory), gradients_of(d, results), workspace,
                                threads());
    call_counts().backward++;
  }
  return status.text;
}

void run_append(const Description& d, const Memory& memory) {
  append_to_cache(d.problem, tensors_of(d, memory), static_cast<const float*>(memory.data[OUTPUT]),
                  static_cast<float*>(memory.data[K]), static_cast<float*>(memory.data[V]));
  call_counts().append++;
}

}  // namespace flash_attention
