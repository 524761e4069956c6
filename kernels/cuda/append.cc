#include "append.h"

#include "../cpu/sequences.h"

namespace flash_attention {
namespace {

/** Copies runs of elements one after the other, and those together that continue each other. */
class Copies {
 public:
  Copies(Device& device, CuStream stream) : device_(device), stream_(stream) {}

  void add(const float* from, float* to, int64_t elements) {
    if (from == from_ + elements_ && to == to_ + elements_) {
      elements_ += elements;
      return;
    }
    flush();
    from_ = from;
    to_ = to;
    elements_ = elements;
  }

  CudaStatus flush() {
    if (elements_ > 0 && status_.ok()) {
      status_ = device_.noted(cuda_status(
          device_.api().copy_on_device(reinterpret_cast<uintptr_t>(to_), reinterpret_cast<uintptr_t>(from_),
                                       static_cast<size_t>(elements_) * sizeof(float), stream_),
          "cuMemcpyDtoDAsync"));
    }
    elements_ = 0;
    return status_;
  }

 private:
  Device& device_;
  const CuStream stream_;
  const float* from_ = nullptr;
  float* to_ = nullptr;
  int64_t elements_ = 0;
  CudaStatus status_;
};

}  // namespace

CudaStatus cuda_append_to_cache(Device& device, const Problem& problem, const Tensors& tensors, const float* new_values,
                                float* k, float* v, CuStream stream) {
  Copies copies(device, stream);
  for (int64_t batch = 0; batch < problem.batch; batch++) {
    const Sequence sequence = sequence_of(problem, tensors, batch);
    const int64_t rows = smaller_of(sequence.queries, sequence.keys);
    const auto copy = [&](const Strides& from_strides, const float* from, const Strides& to_strides, float* to,
                          int64_t size) {
      copies.flush();
      const auto row_of = [&](int64_t row, int64_t head) {
        copies.add(from + query_row(from_strides, sequence, batch, row, head),
                   to + (key_row(problem, tensors, to_strides, to, sequence, row, head) - to), size);
      };
      // In the order in which the cache lies.
      const bool heads_first = to_strides.head > to_strides.row;
      for (int64_t outer = 0; outer < (heads_first ? problem.key_heads : rows); outer++) {
        for (int64_t inner = 0; inner < (heads_first ? rows : problem.key_heads); inner++) {
          row_of(heads_first ? inner : outer, heads_first ? outer : inner);
        }
      }
    };
    copy(problem.q, tensors.q, problem.k, k, problem.head_size);
    copy(problem.output, new_values, problem.v, v, problem.value_size);
  }
  return copies.flush();
}

}  // namespace flash_attention
