#include "run_call.h"

#include <algorithm>
#include <cstring>

namespace flash_attention {
namespace {

std::atomic<int> chosen_threads{0};

int64_t bounded(int64_t value, int64_t most) { return std::max<int64_t>(0, std::min(value, most)); }

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
  const Problem& p = d.problem;
  const Tensors tensors = tensors_of(d, memory);
  struct Part {
    const float* from;
    float* to;
    const Strides &source, &target;
    int64_t size;
  };
  const Part parts[] = {
      {tensors.q, static_cast<float*>(memory.data[K]), p.q, p.k, p.head_size},
      {static_cast<const float*>(memory.data[OUTPUT]), static_cast<float*>(memory.data[V]), p.output, p.v,
       p.value_size}};
  for (const Part& part : parts) {
    for (int64_t b = 0; b < p.batch; b++) {
      const int32_t* fields = tensors.sequences + b * 5;
      const int64_t first_query = bounded(fields[0], p.query_rows), first_key = bounded(fields[2], p.key_length);
      const int64_t queries = bounded(fields[1], p.query_rows - first_query);
      const int64_t rows = std::min(queries, bounded(fields[3], p.key_length - first_key));
      for (int64_t n = 0; n < rows; n++) {
        int64_t batch = bounded(fields[4], p.key_batches - 1), row = first_key + n;
        if (p.page_size > 0) {
          batch = bounded(tensors.block_table[b * p.pages_per_sequence + row / p.page_size], p.key_batches - 1);
          row %= p.page_size;
        }
        const float* from = part.from + part.source.base + b * part.source.batch + (first_query + n) * part.source.row;
        float* to = part.to + part.target.base + batch * part.target.batch + row * part.target.row;
        for (int64_t h = 0; h < p.key_heads; h++) {
          std::memcpy(to + h * part.target.head, from + h * part.source.head, part.size * sizeof(float));
        }
      }
    }
  }
  call_counts().append++;
}

}  // namespace flash_attention
