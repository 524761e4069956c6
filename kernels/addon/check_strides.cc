#include "check_strides.h"

#include <algorithm>
#include <utility>

namespace flash_attention {
namespace {

/** One axis: how many, and elements between neighbours. */
struct Axis {
  int64_t extent;
  int64_t stride;
};

/** Number of elements, from the tensor's first on, that hold all that the axes reach; −1 where it overflows. */
int64_t reach(int64_t base, const Axis* axes, int count) {
  int64_t last = base;
  for (int n = 0; n < count; n++) {
    if (axes[n].extent == 0) {
      return 0;
    }
  }
  for (int n = 0; n < count; n++) {
    int64_t step;
    if (__builtin_mul_overflow(axes[n].extent - 1, axes[n].stride, &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return -1;
    }
  }
  return __builtin_add_overflow(last, int64_t{1}, &last) ? -1 : last;
}

/** Whether every element has a place of its own; the axes' order is lost. */
bool is_injective(Axis* axes, int count) {
  std::sort(axes, axes + count, [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  int64_t below = 1; // elements that the axes before this one span
  for (int n = 0; n < count; n++) {
    if (axes[n].extent == 0) {
      return true;
    }
    if (axes[n].extent == 1) {
      continue;
    }
    int64_t step;
    if (axes[n].stride < below || __builtin_mul_overflow(axes[n].extent - 1, axes[n].stride, &step) ||
        __builtin_add_overflow(below, step, &below)) {
      return false;
    }
  }
  return true;
}

struct RowAxes {
  const Strides& strides;
  int64_t batch, rows, heads, size;
};

RowAxes rows_of(const Description& d, int name) {
  const Problem& p = d.problem;
  const int64_t batch = p.packed_sequences ? 1 : p.batch;
  switch (name) {
    case Q: return {p.q, batch, p.query_rows, p.query_heads, p.head_size};
    case K: return {p.k, p.key_batches, p.key_rows, p.key_heads, p.head_size};
    case V: return {p.v, p.key_batches, p.key_rows, p.key_heads, p.value_size};
    default: return {p.output, batch, p.query_rows, p.query_heads, p.value_size};
  }
}

int64_t reach_of_rows(const Description& d, int name) {
  const RowAxes rows = rows_of(d, name);
  const Axis axes[] = {{rows.batch, rows.strides.batch},
                       {rows.rows, rows.strides.row},
                       {rows.heads, rows.strides.head},
                       {rows.size, 1}};
  return reach(rows.strides.base, axes, 4);
}

int64_t reach_of_lse(const Problem& p) {
  const Axis axes[] = {{p.packed_sequences ? 1 : p.batch, p.lse_batch}, {p.query_heads, p.lse_head}, {p.query_rows, 1}};
  return reach(0, axes, 3);
}

int64_t reach_of_scores(const Problem& p, const BroadcastStrides& s) {
  const Axis axes[] = {
      {p.batch, s.batch}, {p.query_heads, s.head}, {p.query_length, s.query}, {p.key_length, s.key}};
  return reach(0, axes, 4);
}

/** Parts of one row of a packed tensor must not overlap: their gradients are written side by side. */
bool are_apart(const RowAxes& a, const RowAxes& b) {
  const int64_t end_a = a.strides.base + a.heads * a.size, end_b = b.strides.base + b.heads * b.size;
  const int64_t row = std::min(a.strides.row, b.strides.row);
  return a.strides.row == b.strides.row && a.strides.batch == b.strides.batch && a.batch == b.batch &&
         a.rows == b.rows && a.strides.head == a.size && b.strides.head == b.size && end_a <= row && end_b <= row &&
         (end_a <= b.strides.base || end_b <= a.strides.base);
}

std::string check_bias(const Problem& p) {
  const int64_t full[] = {p.batch, p.query_heads, p.query_length, p.key_length};
  const int64_t given[] = {p.bias.batch, p.bias.head, p.bias.query, p.bias.key};
  int64_t stride = 1;
  for (int axis = 3; axis >= 0; axis--) {
    const int64_t extent = p.bias_shape[axis];
    if ((extent != 1 && extent != full[axis]) || given[axis] != (extent == 1 ? 0 : stride)) {
      return "the strides of bias in the description are not those of its shape";
    }
    if (__builtin_mul_overflow(stride, extent, &stride)) {
      return "the bias of the description is too large";
    }
  }
  return "";
}

std::string too_few(int name, int64_t needed, int64_t received) {
  return std::string("expected ") + (needed < 0 ? "more elements than there can be" :
                                                  std::to_string(needed) + " elements or more") +
         " for " + tensor_name(name) + ", received " + std::to_string(received);
}

std::string wrong_number(int name, int64_t needed, int64_t received) {
  return "expected " + std::to_string(needed) + " elements for " + tensor_name(name) + ", received " +
         std::to_string(received);
}

}  // namespace

int64_t shape_product(const int64_t* shape, int rank) {
  int64_t elements = 1;
  for (int axis = 0; axis < rank; axis++) {
    if (shape[axis] == 0) {
      return 0;
    }
    if (elements >= 0 && __builtin_mul_overflow(elements, shape[axis], &elements)) {
      elements = -1;
    }
  }
  return elements;
}

std::string check_strides(const Description& d) {
  const Problem& p = d.problem;
  for (int name : {static_cast<int>(Q), static_cast<int>(K), static_cast<int>(V), static_cast<int>(OUTPUT)}) {
    const RowAxes rows = rows_of(d, name);
    Axis axes[] = {{rows.batch, rows.strides.batch},
                   {rows.rows, rows.strides.row},
                   {rows.heads, rows.strides.head},
                   {rows.size, 1}};
    if (reach_of_rows(d, name) < 0 || !is_injective(axes, 4)) {
      return std::string("the strides of ") + tensor_name(name) + " in the description let rows overlap";
    }
  }
  Axis lse[] = {{p.packed_sequences ? 1 : p.batch, p.lse_batch}, {p.query_heads, p.lse_head}, {p.query_rows, 1}};
  if (reach_of_lse(p) < 0 || !is_injective(lse, 3)) {
    return "the strides of the LSE in the description let rows overlap";
  }
  if ((d.has(QKV) && (!are_apart(rows_of(d, Q), rows_of(d, K)) || !are_apart(rows_of(d, Q), rows_of(d, V)))) ||
      ((d.has(QKV) || d.has(KV)) && !are_apart(rows_of(d, K), rows_of(d, V)))) {
    return "the parts of a packed tensor overlap in the description";
  }
  if (d.has(BIAS)) {
    const std::string error = check_bias(p);
    if (!error.empty()) {
      return error;
    }
  }
  if (d.has(ALIBI_SLOPES) && p.alibi_batch != 0 && p.alibi_batch != p.query_heads) {
    return "expected 0 or queryHeads for alibiBatch in the description, received " + std::to_string(p.alibi_batch);
  }
  // Without gaps, so that memory of as many elements as there are holds them: the kernels keep copies of such.
  const int64_t batch = p.packed_sequences ? 1 : p.batch;
  const int64_t rows[] = {batch, p.query_rows, p.query_heads};
  const int64_t output_rows[] = {batch, p.query_rows, p.query_heads, p.value_size};
  if (d.output_elements() != shape_product(output_rows, 4) || d.output_elements() != reach_of_rows(d, OUTPUT) ||
      d.lse_elements() != shape_product(rows, 3) || d.lse_elements() != reach_of_lse(p)) {
    return "the shape of the output or the LSE in the description is not that of its strides";
  }
  return "";
}

std::string check_elements(const Description& d, const int64_t elements[TENSOR_NAMES]) {
  const Problem& p = d.problem;
  for (const auto& [part, alone] : {std::pair<int, bool>{Q, !d.has(QKV)}, {K, d.has(K)}, {V, d.has(V)}}) {
    const int holder = alone ? part : d.has(QKV) ? QKV : KV;
    const int64_t needed = reach_of_rows(d, part);
    if (needed < 0 || elements[holder] < needed) {
      return too_few(holder, needed, elements[holder]);
    }
  }
  if (d.has(MASK)) {
    const int64_t needed = reach_of_scores(p, p.mask);
    if (needed < 0 || elements[MASK] < needed) {
      return too_few(MASK, needed, elements[MASK]);
    }
  }
  const std::pair<int, int64_t> exact[] = {
      {BIAS, d.has(BIAS) ? shape_product(p.bias_shape, 4) : 0},
      {ALIBI_SLOPES, (p.alibi_batch > 0 ? p.batch : 1) * p.query_heads},
      {SINKS, p.query_heads},
      {SEQUENCES, p.batch * 5},
      {BLOCK_TABLE, p.batch * p.pages_per_sequence},
      {OUTPUT, d.output_elements()},
      {LSE, d.lse_elements()},
      {LSE_TAIL, d.lse_elements()},
      {D_OUTPUT, d.output_elements()},
      {D_LSE, d.lse_elements()}};
  for (const auto& [name, needed] : exact) {
    if (d.has(name) && elements[name] != needed) {
      return wrong_number(name, needed, elements[name]);
    }
  }
  return "";
}

}  // namespace flash_attention
