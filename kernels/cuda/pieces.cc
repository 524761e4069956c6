#include "pieces.h"

#include <algorithm>
#include <cstring>

#include "../cpu/sequences.h"

namespace flash_attention {
namespace {

/** Where tensors of a piece begin: what bulk copies of tiles and 16-byte loads want, and more. */
constexpr int64_t ALIGNMENT = 256;
/** Copies of less than this take no longer than starting the kernels once more. */
constexpr int64_t WORTH_A_PIECE = int64_t{32} << 20;
constexpr int64_t PIECES_FOR_OVERLAP = 8;

int64_t ceil_of(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

/** Puts the tensors of a piece one after the other. */
class PieceBuilder {
 public:
  PieceBuilder(const HostCall& call, const Piece& piece, PieceCall* made) : call_(call), piece_(piece), made_(*made) {}

  void build() {
    const Problem& p = call_.problem;
    const int64_t group = p.query_heads / p.key_heads;
    heads_ = piece_.key_heads * group;
    first_head_ = piece_.first_key_head * group;
    query_batches_ = p.packed_sequences ? 1 : piece_.batches;
    query_batch_ = p.packed_sequences ? 0 : piece_.first_batch;
    takes_all_keys_ = p.packed_sequences || p.page_size > 0 || piece_.batches == p.batch;
    made_.call = call_;
    Problem& mine = made_.call.problem;
    mine.batch = piece_.batches;
    mine.query_heads = heads_;
    mine.key_heads = piece_.key_heads;
    mine.key_batches = takes_all_keys_ ? p.key_batches : piece_.batches;
    mine.first_batch = p.first_batch + piece_.first_batch;
    mine.first_query_head = p.first_query_head + first_head_;
    take_tensors();
    if (call_.is_backward) {
      take_saved();
    } else {
      take_outputs();
    }
    made_.device_bytes = offset_;
  }

 private:
  Runs query_block(const Strides& strides, int64_t size, Strides* mine) const {
    return row_block(strides, query_batches_, call_.problem.query_rows, heads_, size, mine);
  }

  Runs key_block(const Strides& strides, int64_t size, Strides* mine) const {
    const Problem& p = call_.problem;
    return row_block(strides, takes_all_keys_ ? p.key_batches : piece_.batches, p.key_rows, piece_.key_heads, size,
                     mine);
  }

  /** In the order in which rows and heads lie on the host, so that the runs are long. */
  Runs row_block(const Strides& strides, int64_t batches, int64_t rows, int64_t heads, int64_t size,
                 Strides* mine) const {
    // End to end, all sequences are one batch's rows.
    const int64_t of_batch = call_.problem.packed_sequences ? 0 : rows * heads * size;
    if (strides.head < strides.row) {
      *mine = {0, of_batch, heads * size, size};
      return {{batches, rows, heads}, {strides.batch, strides.row, strides.head}, size};
    }
    *mine = {0, of_batch, size, rows * size};
    return {{batches, heads, rows}, {strides.batch, strides.head, strides.row}, size};
  }

  int64_t query_start(const Strides& strides) const {
    return strides.base + query_batch_ * strides.batch + first_head_ * strides.head;
  }

  int64_t key_start(const Strides& strides) const {
    return strides.base + (takes_all_keys_ ? 0 : piece_.first_batch * strides.batch) +
           piece_.first_key_head * strides.head;
  }

  Runs lse_block() const {
    const Problem& p = call_.problem;
    return {{query_batches_, heads_, 1}, {p.lse_batch, p.lse_head, 0}, p.query_rows};
  }

  int64_t lse_start() const {
    return query_batch_ * call_.problem.lse_batch + first_head_ * call_.problem.lse_head;
  }

  /** A tensor that broadcasts: its own axes only. */
  Runs pair_block(const BroadcastStrides& strides, int64_t* start, BroadcastStrides* mine) const {
    const Problem& p = call_.problem;
    const int64_t batches = strides.batch ? piece_.batches : 1, heads = strides.head ? heads_ : 1;
    const int64_t rows = strides.query ? p.query_length : 1, keys = strides.key ? p.key_length : 1;
    *start = piece_.first_batch * strides.batch + first_head_ * strides.head;
    *mine = {strides.batch ? heads * rows * keys : 0, strides.head ? rows * keys : 0, strides.query ? keys : 0,
             strides.key ? 1 : 0};
    return {{batches, heads, rows}, {strides.batch, strides.head, strides.query}, keys};
  }

  template <typename T>
  T* place(const Runs& block, Transfer transfer) {
    transfer.block = block.merged();
    transfer.element_bytes = sizeof(T);
    transfer.device_offset = offset_;
    offset_ += rounded_up(larger_of(1, transfer.bytes()), ALIGNMENT);
    if (transfer.bytes() > 0) {
      made_.transfers.push_back(transfer);
    }
    return reinterpret_cast<T*>(static_cast<uintptr_t>(transfer.device_offset + 1));
  }

  template <typename T>
  void input(const T** pointer, const Runs& block, int64_t start) {
    if (*pointer) {
      Transfer transfer;
      transfer.from = reinterpret_cast<const char*>(*pointer + start);
      *pointer = place<T>(block, transfer);
    }
  }

  void result(float** pointer, const Runs& block, int64_t start, bool is_added = false) {
    if (*pointer) {
      Transfer transfer;
      transfer.to = reinterpret_cast<char*>(*pointer + start);
      transfer.is_added = is_added;
      *pointer = place<float>(block, transfer);
    }
  }

  void take_tensors() {
    const Problem& p = call_.problem;
    Problem& mine = made_.call.problem;
    Tensors& tensors = made_.call.tensors;
    input(&tensors.q, query_block(p.q, p.head_size, &mine.q), query_start(p.q));
    input(&tensors.k, key_block(p.k, p.head_size, &mine.k), key_start(p.k));
    input(&tensors.v, key_block(p.v, p.value_size, &mine.v), key_start(p.v));
    int64_t start = 0;
    Runs block = pair_block(p.mask, &start, &mine.mask);
    input(&tensors.mask, block, start);
    block = pair_block(p.bias, &start, &mine.bias);
    input(&tensors.bias, block, start);
    const int64_t slopes = p.alibi_batch ? piece_.batches : 1;
    mine.alibi_batch = p.alibi_batch ? heads_ : 0;
    input(&tensors.alibi_slopes, {{slopes, 1, 1}, {p.alibi_batch, 0, 0}, heads_},
          piece_.first_batch * p.alibi_batch + first_head_);
    input(&tensors.sinks, {{1, 1, 1}, {0, 0, 0}, heads_}, first_head_);
    take_sequences();
    input(&tensors.block_table, {{1, 1, 1}, {0, 0, 0}, piece_.batches * p.pages_per_sequence},
          piece_.first_batch * p.pages_per_sequence);
  }

  void take_sequences() {
    Tensors& tensors = made_.call.tensors;
    if (!tensors.sequences) {
      return;
    }
    const int32_t* first = tensors.sequences + piece_.first_batch * SEQUENCE_FIELDS;
    made_.sequences.assign(first, first + piece_.batches * SEQUENCE_FIELDS);
    if (!takes_all_keys_) {
      for (int64_t batch = 0; batch < piece_.batches; batch++) {
        made_.sequences[batch * SEQUENCE_FIELDS + 4] = static_cast<int32_t>(batch);
      }
    }
    tensors.sequences = made_.sequences.data();
    input(&tensors.sequences, {{1, 1, 1}, {0, 0, 0}, piece_.batches * SEQUENCE_FIELDS}, 0);
  }

  void take_outputs() {
    const Problem& p = call_.problem;
    Problem& mine = made_.call.problem;
    ForwardOutputs& outputs = made_.call.outputs;
    result(&outputs.output, query_block(p.output, p.value_size, &mine.output), query_start(p.output));
    take_lse_strides();
    result(&outputs.lse, lse_block(), lse_start());
    result(&outputs.lse_tail, lse_block(), lse_start());
  }

  void take_lse_strides() {
    made_.call.problem.lse_batch = call_.problem.packed_sequences ? 0 : heads_ * call_.problem.query_rows;
    made_.call.problem.lse_head = call_.problem.query_rows;
  }

  void take_saved() {
    const Problem& p = call_.problem;
    Problem& mine = made_.call.problem;
    BackwardInputs& inputs = made_.call.inputs;
    const Runs rows = query_block(p.output, p.value_size, &mine.output);
    input(&inputs.output, rows, query_start(p.output));
    input(&inputs.d_output, rows, query_start(p.output));
    take_lse_strides();
    input(&inputs.lse, lse_block(), lse_start());
    input(&inputs.lse_tail, lse_block(), lse_start());
    input(&inputs.d_lse, lse_block(), lse_start());
    Gradients& gradients = made_.call.gradients;
    result(&gradients.d_q, query_block(p.q, p.head_size, &mine.q), query_start(p.q));
    result(&gradients.d_k, key_block(p.k, p.head_size, &mine.k), key_start(p.k));
    result(&gradients.d_v, key_block(p.v, p.value_size, &mine.v), key_start(p.v));
    take_bias_gradient();
  }

  void take_bias_gradient() {
    const Problem& p = call_.problem;
    const int64_t* shape = p.bias_shape;
    const bool is_by_batch = shape[0] > 1, is_by_head = shape[1] > 1;
    const int64_t pairs = shape[2] * shape[3];
    const int64_t batches = is_by_batch ? piece_.batches : shape[0], heads = is_by_head ? heads_ : shape[1];
    const int64_t start =
        ((is_by_batch ? piece_.first_batch : 0) * shape[1] + (is_by_head ? first_head_ : 0)) * pairs;
    const bool is_added = (!is_by_batch && piece_.first_batch > 0) || (!is_by_head && piece_.first_key_head > 0);
    made_.call.problem.bias_shape[0] = batches;
    made_.call.problem.bias_shape[1] = heads;
    result(&made_.call.gradients.d_bias, {{batches, heads, 1}, {shape[1] * pairs, pairs, 0}, pairs}, start, is_added);
  }

  const HostCall& call_;
  const Piece piece_;
  PieceCall& made_;
  int64_t heads_ = 0, first_head_ = 0, query_batches_ = 0, query_batch_ = 0, offset_ = 0;
  /** Whether all batches of k and v go along, or those of the piece. */
  bool takes_all_keys_ = true;
};

/** Calls `copy(host element, run element, count)` for each stretch that lies together. */
template <typename Copy>
void walk(const Runs& block, int64_t first, int64_t end, const Copy& copy) {
  for (int64_t at = first; at < end;) {
    const int64_t run = at / block.run, within = at % block.run;
    const int64_t count = std::min(block.run - within, end - at);
    const int64_t host = run / (block.axes[1] * block.axes[2]) * block.strides[0] +
                         run / block.axes[2] % block.axes[1] * block.strides[1] +
                         run % block.axes[2] * block.strides[2] + within;
    copy(host, at - first, count);
    at += count;
  }
}

/** Whether a piece may have some of the batches: each must have its own k and v. */
bool can_cut_batches(const HostCall& call) {
  const Problem& p = call.problem;
  if (p.packed_sequences || p.page_size > 0 || p.key_batches != p.batch) {
    return false;
  }
  for (int64_t batch = 0; call.tensors.sequences && batch < p.batch; batch++) {
    if (call.tensors.sequences[batch * SEQUENCE_FIELDS + 4] != batch) {
      return false;
    }
  }
  return true;
}

std::vector<Piece> cut(const Problem& p, int64_t batches, int64_t heads) {
  std::vector<Piece> pieces;
  for (int64_t batch = 0; batch < p.batch; batch += batches) {
    for (int64_t head = 0; head < p.key_heads; head += heads) {
      pieces.push_back(
          {batch, std::min(batches, p.batch - batch), head, std::min(heads, p.key_heads - head)});
    }
  }
  return pieces;
}

}  // namespace

Runs Runs::merged() const {
  Runs block = *this;
  for (int pass = 0; pass < 3; pass++) {
    if (block.axes[2] == 1 || block.strides[2] == block.run) {
      block.run *= block.axes[2];
      for (int axis = 2; axis > 0; axis--) {
        block.axes[axis] = block.axes[axis - 1];
        block.strides[axis] = block.strides[axis - 1];
      }
      block.axes[0] = 1;
      block.strides[0] = 0;
    }
  }
  return block;
}

PieceCall piece_call(const HostCall& call, const Piece& piece) {
  PieceCall made;
  PieceBuilder(call, piece, &made).build();
  return made;
}

HostCall on_device(const PieceCall& piece, void* memory) {
  HostCall call = piece.call;
  const auto move = [memory](auto** pointer) {
    using Element = std::remove_reference_t<decltype(**pointer)>;
    if (*pointer) {
      const int64_t offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(*pointer)) - 1;
      *pointer = reinterpret_cast<Element*>(static_cast<char*>(memory) + offset);
    }
  };
  Tensors& t = call.tensors;
  for (const float** pointer : {&t.q, &t.k, &t.v, &t.bias, &t.alibi_slopes, &t.sinks, &call.inputs.output,
                                &call.inputs.lse, &call.inputs.lse_tail, &call.inputs.d_output, &call.inputs.d_lse}) {
    move(pointer);
  }
  move(&t.mask);
  move(&t.sequences);
  move(&t.block_table);
  for (float** pointer : {&call.outputs.output, &call.outputs.lse, &call.outputs.lse_tail, &call.gradients.d_q,
                          &call.gradients.d_k, &call.gradients.d_v, &call.gradients.d_bias}) {
    move(pointer);
  }
  return call;
}

void gather(const Transfer& transfer, int64_t first, int64_t end, char* run) {
  const int64_t size = transfer.element_bytes;
  walk(transfer.block, first, end, [&](int64_t host, int64_t at, int64_t count) {
    std::memcpy(run + at * size, transfer.from + host * size, static_cast<size_t>(count * size));
  });
}

void scatter(const Transfer& transfer, int64_t first, int64_t end, const char* run) {
  const int64_t size = transfer.element_bytes;
  walk(transfer.block, first, end, [&](int64_t host, int64_t at, int64_t count) {
    if (!transfer.is_added) {
      std::memcpy(transfer.to + host * size, run + at * size, static_cast<size_t>(count * size));
      return;
    }
    float* sums = reinterpret_cast<float*>(transfer.to) + host;
    const float* terms = reinterpret_cast<const float*>(run) + at;
    for (int64_t n = 0; n < count; n++) {
      sums[n] += terms[n];
    }
  });
}

PiecePlan plan_pieces(const HostCall& call, int64_t limit, const WorkspaceBytes& workspace) {
  const Problem& p = call.problem;
  PiecePlan plan;
  if (p.batch == 0 || p.query_heads == 0) {
    return plan;
  }
  const auto attempt = [&](int64_t batches, int64_t heads) {
    PiecePlan tried;
    tried.pieces = cut(p, batches, heads);
    const PieceCall largest = piece_call(call, tried.pieces[0]);
    tried.device_bytes = largest.device_bytes;
    tried.workspace_bytes = workspace(largest.call);
    tried.needed_bytes = tried.device_bytes * (tried.pieces.size() > 1 ? 2 : 1) + tried.workspace_bytes;
    return tried;
  };
  const bool cuts_batches = can_cut_batches(call);
  const int64_t least_batches = cuts_batches ? 1 : p.batch;
  plan = attempt(p.batch, p.key_heads);
  const int64_t wanted = std::min(PIECES_FOR_OVERLAP, plan.device_bytes / WORTH_A_PIECE);
  int64_t batches = p.batch, heads = p.key_heads;
  while (plan.needed_bytes > limit || static_cast<int64_t>(plan.pieces.size()) < wanted) {
    if (batches > least_batches) {
      batches = ceil_of(batches, 2);
    } else if (heads > 1) {
      heads = ceil_of(heads, 2);
    } else {
      break;
    }
    PiecePlan next = attempt(batches, heads);
    if (plan.needed_bytes <= limit && next.needed_bytes > limit) {
      break;  // two pieces at a time would not fit, one does
    }
    plan = std::move(next);
  }
  if (plan.needed_bytes > limit) {
    plan.pieces.clear();
  }
  return plan;
}

}  // namespace flash_attention
