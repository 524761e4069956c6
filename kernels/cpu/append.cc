#include <cstring>

#include "attention.h"
#include "sequences.h"

namespace flash_attention {

void append_to_cache(const Problem& problem, const Tensors& tensors, const float* new_values, float* k, float* v) {
  for (int64_t batch = 0; batch < problem.batch; batch++) {
    const Sequence sequence = sequence_of(problem, tensors, batch);
    const int64_t rows = smaller_of(sequence.queries, sequence.keys);
    const auto copy = [&](const Strides& from_strides, const float* from, const Strides& to_strides, float* to,
                          int64_t size) {
      for (int64_t row = 0; row < rows; row++) {
        for (int64_t head = 0; head < problem.key_heads; head++) {
          const float* source = from + query_row(from_strides, sequence, batch, row, head);
          const int64_t target = key_row(problem, tensors, to_strides, to, sequence, row, head) - to;
          std::memcpy(to + target, source, static_cast<size_t>(size) * sizeof(float));
        }
      }
    };
    copy(problem.q, tensors.q, problem.k, k, problem.head_size);
    copy(problem.output, new_values, problem.v, v, problem.value_size);
  }
}

}  // namespace flash_attention
