#include "description.h"

#include <cmath>
#include <initializer_list>

#include "check_strides.h"

namespace flash_attention {
namespace {

constexpr int64_t MAX_EXTENT = INT32_MAX;
/** Largest integer that a double holds exactly. */
constexpr int64_t MAX_STRIDE = int64_t{1} << 53;
constexpr int64_t MAX_HEAD_SIZE = 256;

constexpr uint32_t bit(int name) { return uint32_t{1} << name; }

constexpr uint32_t FORWARD_NAMES = bit(OUTPUT) - 1;
constexpr uint32_t SAVED_NAMES = bit(OUTPUT) | bit(LSE) | bit(LSE_TAIL) | bit(D_OUTPUT);
constexpr uint32_t GRADIENT_NAMES = bit(Q) | bit(K) | bit(V) | bit(QKV) | bit(KV) | bit(BIAS);

std::string text_of(double value) {
  if (std::isfinite(value) && value == std::floor(value) && std::fabs(value) < 1e15) {
    return std::to_string(static_cast<int64_t>(value));
  }
  return std::to_string(value);
}

/** Takes the numbers one after the other, and notes the first that will not do. */
class Reader {
 public:
  explicit Reader(const double* values) : next_(values) {}

  int64_t integer(const char* name, int64_t least, int64_t most) {
    const double value = *next_++;
    // Not equal to itself: NaN fails every comparison.
    if (!(value >= static_cast<double>(least) && value <= static_cast<double>(most)) || value != std::floor(value)) {
      fail("an integer from " + std::to_string(least) + " to " + std::to_string(most), name, value);
      return least;
    }
    return static_cast<int64_t>(value);
  }

  bool boolean(const char* name) { return integer(name, 0, 1) == 1; }

  double number(const char* name, double least, double below) {
    const double value = *next_++;
    if (!(value >= least && value < below)) {
      fail("a number of at least " + text_of(least) + " and below " + text_of(below), name, value);
      return least;
    }
    return value;
  }

  double finite(const char* name) {
    const double value = *next_++;
    if (!std::isfinite(value)) {
      fail("a finite number", name, value);
      return 0;
    }
    return value;
  }

  Strides strides(const char* name) {
    Strides strides;
    for (int64_t* field : {&strides.base, &strides.batch, &strides.row, &strides.head}) {
      *field = integer(name, 0, MAX_STRIDE);
    }
    return strides;
  }

  BroadcastStrides broadcast(const char* name) {
    BroadcastStrides strides;
    for (int64_t* field : {&strides.batch, &strides.head, &strides.query, &strides.key}) {
      *field = integer(name, 0, MAX_STRIDE);
    }
    return strides;
  }

  const std::string& error() const { return error_; }

 private:
  void fail(const std::string& expected, const char* name, double received) {
    if (error_.empty()) {
      error_ = "expected " + expected + " for " + name + " in the description, received " + text_of(received);
    }
  }

  const double* next_;
  std::string error_;
};

void read_problem(Reader& reader, Problem* p) {
  p->batch = reader.integer("batch", 0, MAX_EXTENT);
  p->query_length = reader.integer("queryLength", 0, MAX_EXTENT);
  p->key_length = reader.integer("keyLength", 0, MAX_EXTENT);
  p->query_rows = reader.integer("queryRows", 0, MAX_EXTENT);
  p->key_rows = reader.integer("keyRows", 0, MAX_EXTENT);
  p->query_heads = reader.integer("queryHeads", 0, MAX_EXTENT);
  p->key_heads = reader.integer("keyHeads", 1, MAX_EXTENT);
  p->head_size = reader.integer("headSize", 1, MAX_HEAD_SIZE);
  p->value_size = reader.integer("valueSize", 1, MAX_HEAD_SIZE);
  p->key_batches = reader.integer("keyBatches", 0, MAX_EXTENT);
  p->page_size = reader.integer("pageSize", 0, MAX_EXTENT);
  p->pages_per_sequence = reader.integer("pagesPerSequence", 0, MAX_EXTENT);
  p->packed_sequences = reader.boolean("packedSequences");
  p->window_left = reader.integer("windowLeft", -1, MAX_EXTENT);
  p->window_right = reader.integer("windowRight", -1, MAX_EXTENT);
  p->bottom_right = reader.boolean("bottomRight");
  p->softmax_scale = reader.finite("softmaxScale");
  p->softcap = reader.number("softcap", 0, HUGE_VAL);
  p->dropout_p = reader.number("dropoutP", 0, 1);
  p->seed_low = static_cast<uint32_t>(reader.integer("seedLow", 0, UINT32_MAX));
  p->seed_high = static_cast<uint32_t>(reader.integer("seedHigh", 0, UINT32_MAX));
  p->q = reader.strides("the strides of q");
  p->k = reader.strides("the strides of k");
  p->v = reader.strides("the strides of v");
  p->output = reader.strides("the strides of the output");
  p->lse_batch = reader.integer("lseBatch", 0, MAX_STRIDE);
  p->lse_head = reader.integer("lseHead", 0, MAX_STRIDE);
  p->mask = reader.broadcast("the strides of mask");
  p->bias = reader.broadcast("the strides of bias");
  for (int64_t& axis : p->bias_shape) {
    axis = reader.integer("biasShape", 0, MAX_EXTENT);
  }
  p->alibi_batch = reader.integer("alibiBatch", 0, MAX_EXTENT);
}

/** How the tensors that are there go together, and with the kind of the call. */
std::string check_names(const Description& d) {
  const uint32_t present = d.present;
  const bool is_append = d.kind == CallKind::append;
  uint32_t allowed = FORWARD_NAMES;
  uint32_t needed = 0;
  if (d.kind == CallKind::backward) {
    allowed |= SAVED_NAMES | bit(D_LSE);
    needed = SAVED_NAMES;
  } else if (is_append) {
    needed = allowed = bit(Q) | bit(K) | bit(V) | bit(OUTPUT) | bit(SEQUENCES);
    allowed |= bit(BLOCK_TABLE);
  }
  if ((present & ~allowed) != 0 || (present & needed) != needed) {
    return "the tensors of the description do not belong to such a call";
  }
  const bool is_qkv = d.has(QKV), is_kv = d.has(KV);
  const uint32_t rows = present & (bit(Q) | bit(K) | bit(V));
  const uint32_t expected = is_qkv ? 0 : is_kv ? bit(Q) : bit(Q) | bit(K) | bit(V);
  if (rows != expected || (is_qkv && is_kv)) {
    return "expected q, k and v, or q and kv, or qkv, for the tensors of the description";
  }
  const uint32_t gradients = d.kind == CallKind::backward ? present & GRADIENT_NAMES : 0;
  if ((d.wanted & ~gradients) != 0 || (d.kind == CallKind::backward && d.wanted == 0)) {
    return "the gradients that the description wants are not those of its call";
  }
  return "";
}

std::string check_sizes(const Description& d) {
  const Problem& p = d.problem;
  if (p.query_heads % p.key_heads != 0) {
    return "expected a number of query heads that keyHeads divides, received " + std::to_string(p.query_heads);
  }
  if (p.batch > 0 && p.query_heads > MAX_EXTENT / p.batch) {
    return "expected at most 2147483647 heads of all batches together";
  }
  if (d.kind == CallKind::append && p.query_heads != p.key_heads) {
    return "expected as many heads of new rows as of the cache, received " + std::to_string(p.query_heads);
  }
  const bool has_pages = p.page_size > 0;
  if (d.has(BLOCK_TABLE) != has_pages || has_pages != (p.pages_per_sequence > 0)) {
    return "expected a block table with pages, and none without";
  }
  if (has_pages && d.kind == CallKind::backward) {
    return "attention over pages has no gradient";
  }
  if (p.packed_sequences) {
    if (!p.has_sequences || has_pages || d.has(MASK) || d.has(BIAS)) {
      return "sequences end to end need the tensor sequences, and take neither pages nor a mask nor a bias";
    }
    if (p.query_length > p.query_rows || p.key_length > p.key_rows || p.key_batches != 1) {
      return "expected lengths of at most all rows for sequences end to end";
    }
    if (p.q.batch != 0 || p.output.batch != 0 || p.lse_batch != 0) {
      return "expected no strides between batches for sequences end to end";
    }
    return "";
  }
  if (p.query_length != p.query_rows) {
    return "expected queryLength rows of q, received " + std::to_string(p.query_rows);
  }
  if (has_pages ? p.key_rows != p.page_size || p.key_length / p.page_size != p.pages_per_sequence ||
                      p.key_length % p.page_size != 0 :
                  p.key_length != p.key_rows) {
    return "expected keyLength rows of k, received " + std::to_string(p.key_rows);
  }
  if (p.has_sequences ? p.key_batches < 1 && p.batch > 0 : p.key_batches != p.batch || has_pages) {
    return "expected batches of k that the call can pick, received " + std::to_string(p.key_batches);
  }
  return "";
}

}  // namespace

ElementType element_type(int name) {
  return name == MASK                                  ? ElementType::boolean :
         name == SEQUENCES || name == BLOCK_TABLE ? ElementType::int32 :
                                                    ElementType::float32;
}

const char* tensor_name(int name) {
  static const char* const names[TENSOR_NAMES] = {
      "q", "k", "v", "qkv", "kv", "mask", "bias", "alibiSlopes", "sinks", "sequences", "blockTable",
      "output", "lse", "lseTail", "dOutput", "dLse"};
  return names[name];
}

int64_t Description::output_elements() const { return shape_product(output_shape, output_rank); }

int64_t Description::lse_elements() const { return shape_product(lse_shape, lse_rank); }

std::string read_description(const double* values, size_t count, Description* description) {
  Description d;
  if (count != DESCRIPTION_SIZE || values[0] != DESCRIPTION_FORMAT) {
    return "the description of the call is not one of format " + std::to_string(DESCRIPTION_FORMAT) +
           ": the addon and the package are of different versions";
  }
  Reader reader(values + 1);
  d.kind = static_cast<CallKind>(reader.integer("kind", 0, 2));
  d.present = static_cast<uint32_t>(reader.integer("present", 0, bit(TENSOR_NAMES) - 1));
  d.wanted = static_cast<uint32_t>(reader.integer("wanted", 0, bit(TENSOR_NAMES) - 1));
  read_problem(reader, &d.problem);
  d.output_rank = static_cast<int>(reader.integer("the rank of the output", 3, 4));
  for (int64_t& axis : d.output_shape) {
    axis = reader.integer("the shape of the output", 0, MAX_EXTENT);
  }
  d.lse_rank = static_cast<int>(reader.integer("the rank of the LSE", 2, 3));
  for (int64_t& axis : d.lse_shape) {
    axis = reader.integer("the shape of the LSE", 0, MAX_EXTENT);
  }
  d.problem.deterministic = reader.boolean("deterministic");
  d.compute_type = static_cast<cuda::ComputeType>(reader.integer("computeType", 0, 3));
  d.problem.has_sequences = d.has(SEQUENCES);
  std::string error = reader.error();
  for (auto check : {check_names, check_sizes, check_strides}) {
    if (error.empty()) {
      error = check(d);
    }
  }
  if (error.empty()) {
    *description = d;
  }
  return error;
}

namespace {

/** Tensors of some names: null where a name is not among them. */
struct Named {
  uint32_t names;
  const Memory& memory;

  template <typename T = float>
  T* get(int name) const {
    return (names & bit(name)) != 0 ? static_cast<T*>(memory.data[name]) : nullptr;
  }
  /** q, k and v, or the packed tensors that hold them. */
  float* q() const { return get(names & bit(QKV) ? QKV : Q); }
  float* k() const { return get(names & bit(QKV) ? QKV : names & bit(KV) ? KV : K); }
  float* v() const { return get(names & bit(QKV) ? QKV : names & bit(KV) ? KV : V); }
};

}  // namespace

Tensors tensors_of(const Description& d, const Memory& memory) {
  const Named present = {d.present, memory};
  Tensors tensors;
  tensors.q = present.q();
  tensors.k = present.k();
  tensors.v = present.v();
  tensors.mask = present.get<uint8_t>(MASK);
  tensors.bias = present.get(BIAS);
  tensors.alibi_slopes = present.get(ALIBI_SLOPES);
  tensors.sinks = present.get(SINKS);
  tensors.sequences = present.get<int32_t>(SEQUENCES);
  tensors.block_table = present.get<int32_t>(BLOCK_TABLE);
  return tensors;
}

BackwardInputs backward_inputs_of(const Description& d, const Memory& memory) {
  const Named present = {d.present, memory};
  return {present.get(OUTPUT), present.get(LSE), present.get(LSE_TAIL), present.get(D_OUTPUT), present.get(D_LSE)};
}

Gradients gradients_of(const Description& d, const Memory& memory) {
  const Named wanted = {d.wanted, memory};
  return {wanted.q(), wanted.k(), wanted.v(), wanted.get(BIAS)};
}

}  // namespace flash_attention
