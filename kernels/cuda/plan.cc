#include "plan.h"

#include "instances.h"

namespace flash_attention {
namespace cuda {
namespace {

constexpr int64_t FEW_ROWS = 8;
/** Fewer queries than this: the rows of all query heads of a key head together. */
constexpr int64_t TOGETHER_BELOW = 64;
/** Parts of the keys are not cut smaller; and no more of them, since merging reads them all. */
constexpr int64_t LEAST_PART_KEYS = 256;
constexpr int64_t LEAST_FEW_PART_KEYS = 64;
/** Keys in whose time a block of the kernel for few rows begins and ends. */
constexpr int64_t FEW_EXTRA_KEYS = 32;
constexpr int64_t MOST_GRID = 65535;
constexpr int CONVERT_THREADS = 256;
/** Bits of Params::which. */
constexpr int OF_Q = 1, OF_K = 2, OF_V = 4, OF_D_OUTPUT = 8;
/** Blocks of a group of heads that look whether it must be converted again. */
constexpr int CONVERT_AGAIN_BLOCKS = 16;
constexpr int ROW_THREADS = ROW_WARPS * 32;

int64_t divided_up(int64_t value, int64_t by) { return (value + by - 1) / by; }
int64_t up(int64_t value, int64_t step) { return divided_up(value, step) * step; }
int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

int pieces_of(OperandKind kind) { return kind == OperandKind::SplitF16 ? 2 : 1; }

const char* name_of(OperandKind kind) {
  return kind == OperandKind::Bf16 ? "bf16" : kind == OperandKind::F16 ? "f16" : "split";
}

struct ForwardEntry {
  const char* name;
  bool general;
  OperandKind kind;
  int dp, warps, m, keys;
  int rows() const { return warps * m * 16; }
  int threads() const { return warps * 32; }
  int shared_bytes() const { return pieces_of(kind) * (rows() + 2 * keys) * dp * 2; }
};

struct GradientEntry {
  const char* name;
  bool general, wide;
  OperandKind kind;
  int dp, warps, moving, stages;
  int rows() const { return warps * 16; }
  int threads() const { return warps * 32; }
  int shared_bytes() const {
    const int row = pieces_of(kind) * dp * 2, statistics = (3 * moving * 4 + dp * 2 - 1) / (dp * 2) * (dp * 2);
    return 2 * rows() * row + stages * (2 * moving * row + statistics);
  }
};

struct RowsEntry {
  int elements, rows;
  int shared_bytes() const { return rows_shared_bytes(elements, rows); }
};

#define FLASH_FORWARD(name, GENERAL, Kind, DP, WARPS, M, KEYS, BLOCKS) \
  {#name, GENERAL, OperandKind::Kind, DP, WARPS, M, KEYS},
const ForwardEntry FORWARD[] = {FLASH_FORWARD_INSTANCES(FLASH_FORWARD)};

#define FLASH_NARROW(name, GENERAL, Kind, DP, WARPS, MOVING, STAGES, COLUMNS) \
  {#name, GENERAL, false, OperandKind::Kind, DP, WARPS, MOVING, STAGES},
#define FLASH_WIDE(name, GENERAL, Kind, DP, WARPS, MOVING, STAGES, COLUMNS) \
  {#name, GENERAL, true, OperandKind::Kind, DP, WARPS, MOVING, STAGES},
const GradientEntry GRADIENT[] = {FLASH_GRADIENT_INSTANCES(FLASH_NARROW, FLASH_WIDE)};

#define FLASH_BIAS(name, Kind, DP, WARPS, MOVING, COLUMNS) \
  {#name, true, true, OperandKind::Kind, DP, WARPS, MOVING, 1},
const GradientEntry BIAS[] = {FLASH_BIAS_INSTANCES(FLASH_BIAS)};

#define FLASH_ROWS(E, ROWS) {E, ROWS},
const RowsEntry ROWS[] = {FLASH_ROWS_INSTANCES(FLASH_ROWS)};

/** The entry of a list that has this kind and size; each list has all of them (test/cuda/plan_test.cc). */
template <typename Entry, size_t COUNT>
const Entry& find(const Entry (&list)[COUNT], OperandKind kind, int dp, bool general) {
  for (const Entry& entry : list) {
    if (entry.kind == kind && entry.dp == dp && entry.general == general) {
      return entry;
    }
  }
  return list[0];
}

RowStrides row_strides(const Strides& strides) { return {strides.base, strides.batch, strides.row, strides.head}; }

PairStrides pair_strides(const BroadcastStrides& strides) {
  return {strides.batch, strides.head, strides.query, strides.key};
}

int32_t window(int64_t bound) { return static_cast<int32_t>(least(bound, int64_t{1} << 30)); }

/** Hands out offsets, plus 1 so that null stays null. */
class Offsets {
 public:
  template <typename T>
  T* take(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += up(count * static_cast<int64_t>(sizeof(T)), 256);
    return reinterpret_cast<T*>(static_cast<uintptr_t>(at + 1));
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

void set_problem(Params& p, const Problem& problem, const Tensors& tensors) {
  p.batch = static_cast<int32_t>(problem.batch);
  p.query_length = static_cast<int32_t>(problem.query_length);
  p.key_length = static_cast<int32_t>(problem.key_length);
  p.query_heads = static_cast<int32_t>(problem.query_heads);
  p.key_heads = static_cast<int32_t>(problem.key_heads);
  p.head_size = static_cast<int32_t>(problem.head_size);
  p.value_size = static_cast<int32_t>(problem.value_size);
  p.query_rows = static_cast<int32_t>(problem.query_rows);
  p.key_rows = static_cast<int32_t>(problem.key_rows);
  p.key_batches = static_cast<int32_t>(problem.key_batches);
  p.page_size = static_cast<int32_t>(problem.page_size);
  p.pages_per_sequence = static_cast<int32_t>(problem.pages_per_sequence);
  p.packed = problem.packed_sequences;
  p.bottom_right = problem.bottom_right;
  p.window_left = window(problem.window_left);
  p.window_right = window(problem.window_right);
  p.softmax_scale = static_cast<float>(problem.softmax_scale);
  p.softcap = static_cast<float>(problem.softcap);
  p.dropout = problem.dropout_p > 0;
  p.kept_scale = static_cast<float>(1 / (1 - problem.dropout_p));
  const double share = problem.dropout_p * 4294967296.0 + 0.5;
  p.dropout_threshold = static_cast<uint32_t>(share < 4294967295.0 ? share : 4294967295.0);
  p.seed_low = problem.seed_low;
  p.seed_high = problem.seed_high;
  p.first_batch = static_cast<uint32_t>(problem.first_batch);
  p.first_query_head = static_cast<uint32_t>(problem.first_query_head);
  p.q_strides = row_strides(problem.q);
  p.k_strides = row_strides(problem.k);
  p.v_strides = row_strides(problem.v);
  p.output_strides = row_strides(problem.output);
  p.lse_batch = problem.lse_batch;
  p.lse_head = problem.lse_head;
  p.alibi_batch = problem.alibi_batch;
  p.mask_strides = pair_strides(problem.mask);
  p.bias_strides = pair_strides(problem.bias);
  for (int axis = 0; axis < 4; axis++) {
    p.bias_shape[axis] = static_cast<int32_t>(problem.bias_shape[axis]);
  }
  p.q = tensors.q;
  p.k = tensors.k;
  p.v = tensors.v;
  p.bias = tensors.bias;
  p.mask = tensors.mask;
  p.alibi_slopes = tensors.alibi_slopes;
  p.sinks = tensors.sinks;
  p.sequences = tensors.sequences;
  p.block_table = tensors.block_table;
}

/** Canonical rows of all batches. */
CanonicalRows canonical_rows(int64_t batch, int64_t rows_of_batch, bool packed, int64_t rows_of_all) {
  if (packed) {
    return {up(rows_of_all, TILE_ROWS) + batch * TILE_ROWS, 0};
  }
  const int64_t per_batch = most(TILE_ROWS, up(rows_of_batch, TILE_ROWS));
  return {batch * per_batch, per_batch};
}

/** What forward and backward plans begin with. */
Plan begin_plan(const Problem& problem, const Tensors& tensors, const CallKind& call, bool together) {
  Plan plan;
  Params& p = plan.params;
  set_problem(p, problem, tensors);
  // f16 times a power of two for each tensor and head rounds as tensorfloat32 does (params.h).
  plan.kind = call.compute == ComputeType::bfloat16                                          ? OperandKind::Bf16
      : call.compute == ComputeType::float16 || call.compute == ComputeType::tensorfloat32 ? OperandKind::F16
                                                                                           : OperandKind::SplitF16;
  plan.is_general = !(p.softmax_scale > 0) || p.softcap > 0 || p.dropout || tensors.mask || tensors.bias ||
      tensors.alibi_slopes;
  const int64_t size = most(problem.head_size, problem.value_size);
  p.dp = size <= 64 ? 64 : size <= 128 ? 128 : 256;
  p.heads_per_unit = together ? p.query_heads / p.key_heads : 1;
  p.units = p.query_heads / p.heads_per_unit;
  p.unit_rows = p.query_length * p.heads_per_unit;
  p.parts = 1;
  p.part_keys = static_cast<int32_t>(most(1, problem.key_length));
  p.weight_exponent = plan.kind == OperandKind::F16 ? 14 : 0;
  // Sequences end to end lie end to end here too, unless rows of several heads do.
  p.query_place = canonical_rows(problem.batch, p.unit_rows, problem.packed_sequences && !together, problem.query_rows);
  p.key_place = canonical_rows(problem.batch, problem.key_length, problem.packed_sequences, problem.key_rows);
  if (size > 256) {
    plan.problem = "the CUDA kernels take head sizes up to 256; use the kernels for CPUs";
  } else if (problem.batch > MOST_GRID || problem.query_heads > MOST_GRID) {
    plan.problem = "the CUDA kernels take up to 65535 batches and heads; use several calls";
  } else if (problem.query_rows > INT32_MAX - 256 * 1024 || problem.key_rows > INT32_MAX - 256 * 1024 ||
             problem.query_length * p.heads_per_unit > INT32_MAX - 1024 || problem.key_length > INT32_MAX - 1024) {
    plan.problem = "the CUDA kernels take up to 2^31 rows; use shorter sequences or several calls";
  }
  return plan;
}

class Launches {
 public:
  explicit Launches(Plan& plan) : plan_(plan) {}

  void add(const std::string& kernel, int64_t x, int64_t y, int64_t z, int threads, int shared_bytes = 0,
           Launch::Takes takes = Launch::Takes::params, int which = 0) {
    if (x > 0 && y > 0 && z > 0) {
      plan_.launches.push_back({kernel, static_cast<unsigned int>(x), static_cast<unsigned int>(y),
                                static_cast<unsigned int>(z), static_cast<unsigned int>(threads), shared_bytes, takes,
                                which, {}, {}});
    }
  }

  void add_hopper(const hopper::HopperKernel& kernel, int multiprocessors) {
    const hopper::HopperLaunch launch = hopper_launch(plan_.params, kernel);
    if (launch.tiles() > 0) {
      add(kernel.name, launch.blocks(multiprocessors), 1, 1, kernel.threads, kernel.shared_bytes,
          Launch::Takes::hopper);
      plan_.launches.back().hopper = launch;
    }
  }

  void clear(float* data, const Strides& strides, int64_t batches, int64_t rows, int64_t heads, int64_t size) {
    if (data && batches > 0 && rows > 0 && heads > 0) {
      add("flash_clear_rows", rows, heads, batches, size < 32 ? 32 : 128, 0, Launch::Takes::clear);
      plan_.launches.back().clear = {data, row_strides(strides), static_cast<int32_t>(size)};
    }
  }

  /** Places of sequences, and canonical operands of the tensors `which` (OF_Q and its kin, together). */
  void convert(int which) {
    const Params& p = plan_.params;
    int64_t rows = 0, units = 0;
    for (const int one : {OF_Q, OF_K, OF_V, OF_D_OUTPUT}) {
      const bool is_query = one == OF_Q || one == OF_D_OUTPUT;
      if (which & one) {
        rows = most(rows, up(is_query ? p.unit_rows : p.key_length, TILE_ROWS));
        units += is_query ? p.units : p.key_heads;
      }
    }
    const int64_t blocks = rows * p.dp / 8 / CONVERT_THREADS;
    const std::string kind = name_of(plan_.kind);
    const auto add_one = [&](const std::string& kernel, int64_t x, int64_t y, int64_t z) {
      add(kernel, x, y, z, CONVERT_THREADS, 0, Launch::Takes::params, which);
    };
    const bool has_magnitudes = plan_.kind != OperandKind::Bf16;
    if (has_magnitudes && p.batch > 0 && p.key_heads > 0) {
      add_one("flash_sample", p.key_heads, p.batch, 1);
    } else {
      add_one("flash_locate", 1, 1, 1);
    }
    // Heads that 65,535 blocks do not count together come one tensor after the other.
    if (units <= MOST_GRID) {
      add_one("flash_convert_" + kind, blocks, units, p.batch);
    } else {
      for (const int one : {OF_Q, OF_K, OF_V, OF_D_OUTPUT}) {
        if (which & one) {
          add("flash_convert_" + kind, blocks, one == OF_Q || one == OF_D_OUTPUT ? p.units : p.key_heads, p.batch,
              CONVERT_THREADS, 0, Launch::Takes::params, one);
        }
      }
    }
    if (has_magnitudes && blocks > 0) {
      add_one("flash_convert_again_" + kind, CONVERT_AGAIN_BLOCKS, p.key_heads, p.batch);
    }
  }

 private:
  Plan& plan_;
};

void take_operand(Offsets& offsets, const Plan& plan, bool is_query, Operand& operand) {
  const Params& p = plan.params;
  const int64_t rows = is_query ? p.units * p.query_place.rows : p.key_heads * p.key_place.rows;
  operand.high = offsets.take<uint16_t>(rows * p.dp);
  operand.low = plan.kind == OperandKind::SplitF16 ? offsets.take<uint16_t>(rows * p.dp) : nullptr;
}

void take_common(Offsets& offsets, Plan& plan) {
  plan.params.places = offsets.take<SequencePlace>(plan.params.batch);
  plan.params.groups = offsets.take<GroupState>(static_cast<int64_t>(plan.params.batch) * plan.params.key_heads);
  plan.params.tile_counters = offsets.take<uint32_t>(TILE_COUNTERS);
}

/** Cuts the keys for `blocks` blocks of few rows so that the busiest of the device's `places` has least to do. */
void set_few_parts(Params& p, int64_t blocks, int64_t places) {
  constexpr int64_t STEP = 32;
  const int64_t limit = least(MOST_PARTS, p.key_length / LEAST_FEW_PART_KEYS);
  int64_t best = INT64_MAX;
  for (int64_t parts = 1; parts <= most(1, limit); parts++) {
    const int64_t keys = most(STEP, up(divided_up(p.key_length, parts), STEP));
    const int64_t time = divided_up(blocks * parts, places) * (keys + FEW_EXTRA_KEYS);
    if (time < best) {
      best = time;
      p.part_keys = static_cast<int32_t>(keys);
      p.parts = static_cast<int32_t>(most(1, divided_up(p.key_length, keys)));
    }
  }
}

/** Cuts the keys so that `blocks` · parts fill the device `waves` times over. */
void set_parts(Params& p, int64_t blocks, int64_t wanted, int64_t least_keys, int64_t step) {
  const int64_t parts = least(MOST_PARTS, least(divided_up(wanted, most(1, blocks)), p.key_length / least_keys));
  if (parts > 1) {
    const int64_t keys = up(divided_up(p.key_length, parts), step);
    p.part_keys = static_cast<int32_t>(keys);
    p.parts = static_cast<int32_t>(divided_up(p.key_length, keys));
  }
}

/** Whether Hopper kernels know what the plan asks for. */
bool is_for_hopper(const Plan& plan) { return !plan.is_general && plan.kind != OperandKind::SplitF16; }

/** The Hopper kernel for a pass, or null where kernels of mma.sync serve. */
const hopper::HopperKernel* hopper_kernel(const Plan& plan, const CallKind& call, hopper::Pass pass) {
  if (!call.has_hopper || call.family == Family::mma_sync || !is_for_hopper(plan)) {
    return nullptr;
  }
  return find_hopper_kernel(plan.params, pass, plan.kind == OperandKind::Bf16);
}

std::string name_of(const RowsEntry& entry) {
  return "flash_rows_" + std::to_string(entry.elements) + "_" + std::to_string(entry.rows);
}

RowsEntry rows_entry(int64_t size, int rows) { return {size <= 64 ? 2 : size <= 128 ? 4 : 8, rows}; }

void take_parts(Offsets& offsets, Params& p) {
  if (p.parts > 1) {
    const int64_t rows = static_cast<int64_t>(p.parts) * p.units * p.query_place.rows;
    p.part_output = offsets.take<float>(rows * p.value_size);
    p.part_state = offsets.take<float>(rows * 2);
  }
}

template <typename T>
void bind(T*& pointer, char* memory) {
  if (pointer) {
    pointer = reinterpret_cast<T*>(memory + reinterpret_cast<uintptr_t>(pointer) - 1);
  }
}

}  // namespace

bool is_few_rows(const Problem& problem) {
  return problem.query_length * (problem.query_heads / most(1, problem.key_heads)) <= FEW_ROWS;
}

Plan make_forward_plan(const Problem& problem, const Tensors& tensors, const ForwardOutputs& outputs,
                       const CallKind& call, int multiprocessors) {
  const bool few = call.may_be_few && is_few_rows(problem);
  const bool together = problem.query_heads > problem.key_heads && (few || problem.query_length < TOGETHER_BELOW);
  Plan plan = begin_plan(problem, tensors, call, together);
  if (!plan.problem.empty()) {
    return plan;
  }
  Params& p = plan.params;
  plan.is_few_rows = few;
  p.output = outputs.output;
  p.lse = outputs.lse;
  p.lse_tail = outputs.lse_tail;
  Offsets offsets;
  Launches launches(plan);
  take_common(offsets, plan);
  if (problem.packed_sequences) {
    const Strides row = {0, problem.lse_batch, 1, problem.lse_head};
    launches.clear(outputs.output, problem.output, 1, problem.query_rows, problem.query_heads, problem.value_size);
    launches.clear(outputs.lse, row, 1, problem.query_rows, problem.query_heads, 1);
    launches.clear(outputs.lse_tail, row, 1, problem.query_rows, problem.query_heads, 1);
  }
  const int64_t units = static_cast<int64_t>(p.batch) * p.units;
  const int64_t size = most(problem.head_size, problem.value_size);
  if (few) {
    p.all_odd = 1;
    p.query_place = {static_cast<int64_t>(p.batch) * p.unit_rows, p.unit_rows};  // only parts have rows here
    const RowsEntry entry = rows_entry(size, p.unit_rows <= 1 ? 1 : p.unit_rows <= 4 ? 4 : 8);
    set_few_parts(p, units, rows_blocks(entry.elements, entry.rows) * multiprocessors);
    launches.add(name_of(entry), units * p.parts, 1, 1, ROW_THREADS, entry.shared_bytes());
  } else {
    const ForwardEntry& entry = find(FORWARD, plan.kind, p.dp, plan.is_general);
    const int64_t tiles = divided_up(p.unit_rows, entry.rows());
    const hopper::HopperKernel* hopper = hopper_kernel(plan, call, hopper::Pass::forward);
    // Those do not take keys in parts, which pays where more than half of the device would have nothing to do.
    if (hopper && call.family == Family::best && p.key_length >= 2 * LEAST_PART_KEYS &&
        2 * hopper_launch(p, *hopper).tiles() < multiprocessors) {
      hopper = nullptr;
    }
    // A block to a multiprocessor at least: below that they are cut for two.
    if (!hopper && units * tiles < multiprocessors) {
      set_parts(p, units * tiles, 2 * multiprocessors, LEAST_PART_KEYS, TILE_ROWS);
    }
    take_operand(offsets, plan, true, p.q16);
    take_operand(offsets, plan, false, p.k16);
    take_operand(offsets, plan, false, p.v16);
    launches.convert(OF_Q | OF_K | OF_V);
    if (hopper) {
      launches.add_hopper(*hopper, multiprocessors);
    } else {
      launches.add(std::string("flash_forward_") + entry.name, tiles * p.parts, p.units, p.batch, entry.threads(),
                   entry.shared_bytes());
    }
  }
  if (p.parts > 1) {
    launches.add("flash_merge", p.unit_rows, p.units, p.batch, MERGE_THREADS);
  }
  if (!few && p.unit_rows > 0) {
    const RowsEntry entry = rows_entry(size, 4);
    launches.add(name_of(entry), 4 * multiprocessors, 1, 1, ROW_THREADS, entry.shared_bytes(),
                 Launch::Takes::odd_params);
  }
  take_parts(offsets, p);
  plan.workspace_bytes = offsets.bytes();
  return plan;
}

Plan make_backward_plan(const Problem& problem, const Tensors& tensors, const BackwardInputs& inputs,
                        const Gradients& gradients, const CallKind& call, int multiprocessors) {
  Plan plan = begin_plan(problem, tensors, call, false);
  if (!plan.problem.empty()) {
    return plan;
  }
  Params& p = plan.params;
  p.output = const_cast<float*>(inputs.output);
  p.lse = const_cast<float*>(inputs.lse);
  p.lse_tail = const_cast<float*>(inputs.lse_tail);
  p.d_output = inputs.d_output;
  p.d_lse = inputs.d_lse;
  p.d_q = gradients.d_q;
  p.d_k = gradients.d_k;
  p.d_v = gradients.d_v;
  p.d_bias = gradients.d_bias;
  Offsets offsets;
  Launches launches(plan);
  take_common(offsets, plan);
  take_operand(offsets, plan, true, p.q16);
  take_operand(offsets, plan, false, p.k16);
  take_operand(offsets, plan, false, p.v16);
  take_operand(offsets, plan, true, p.d_output16);
  const int64_t rows = p.units * p.query_place.rows;
  p.lse_high = offsets.take<float>(rows);
  p.lse_low = offsets.take<float>(rows);
  p.delta = offsets.take<float>(rows);
  // Memory for its sums is taken on every device: how much a call takes is asked where none is known.
  const bool may_add = !problem.deterministic && gradients.d_q && (gradients.d_k || gradients.d_v) &&
      is_for_hopper(plan) && find_hopper_kernel(p, hopper::Pass::all, plan.kind == OperandKind::Bf16);
  float* const sums = may_add ? offsets.take<float>(rows * p.dp) : nullptr;
  const hopper::HopperKernel* adding = may_add ? hopper_kernel(plan, call, hopper::Pass::all) : nullptr;
  p.d_q_sums = adding ? sums : nullptr;
  plan.workspace_bytes = offsets.bytes();

  if (problem.has_sequences || problem.packed_sequences) {
    const int64_t query_batches = problem.packed_sequences ? 1 : problem.batch;
    const int64_t key_batches = problem.packed_sequences ? 1 : problem.key_batches;
    launches.clear(gradients.d_q, problem.q, query_batches, problem.query_rows, problem.query_heads, problem.head_size);
    launches.clear(gradients.d_k, problem.k, key_batches, problem.key_rows, problem.key_heads, problem.head_size);
    launches.clear(gradients.d_v, problem.v, key_batches, problem.key_rows, problem.key_heads, problem.value_size);
  }
  launches.convert(OF_Q | OF_K | OF_V | OF_D_OUTPUT);
  launches.add("flash_row_statistics", up(p.query_length, TILE_ROWS) / ROW_STATISTICS_ROWS, p.query_heads, p.batch,
               ROW_THREADS);
  const GradientEntry& entry = find(GRADIENT, plan.kind, p.dp, plan.is_general);
  const auto add = [&](const char* what, int64_t tiles, int64_t heads) {
    launches.add(std::string("flash_") + what + "_" + entry.name, tiles, heads, p.batch, entry.threads(),
                 entry.shared_bytes());
  };
  const int64_t key_tiles = divided_up(p.key_length, entry.rows());
  if (adding) {
    launches.add_hopper(*adding, multiprocessors);
    launches.add_hopper(*hopper_kernel(plan, call, hopper::Pass::sums), multiprocessors);
  } else if (const auto* hopper = hopper_kernel(plan, call, hopper::Pass::keys)) {
    if (gradients.d_k || gradients.d_v) {
      launches.add_hopper(*hopper, multiprocessors);
    }
  } else {
    if (entry.wide && gradients.d_v) {
      add("d_value", key_tiles, p.key_heads);
    }
    if (entry.wide ? gradients.d_k != nullptr : gradients.d_k || gradients.d_v) {
      add(entry.wide ? "d_key" : "d_key_value", key_tiles, p.key_heads);
    }
  }
  if (gradients.d_q && !adding) {
    if (const auto* hopper = hopper_kernel(plan, call, hopper::Pass::queries)) {
      launches.add_hopper(*hopper, multiprocessors);
    } else {
      add("d_query", divided_up(p.query_length, entry.rows()), p.query_heads);
    }
  }
  const int64_t odd_blocks = 4 * multiprocessors;
  if (gradients.d_bias) {
    const GradientEntry& of = find(BIAS, plan.kind, p.dp, true);
    const int64_t queries = p.bias_strides.query != 0 ? divided_up(p.query_length, of.rows()) : 1;
    const int64_t keys = p.bias_strides.key != 0 ? divided_up(p.key_length, of.moving) : 1;
    launches.add(std::string("flash_d_bias_") + of.name, queries * keys, p.bias_shape[1], p.bias_shape[0], of.threads(),
                 of.shared_bytes());
    launches.add("flash_exact_d_bias", odd_blocks, 1, 1, ROW_THREADS);
  }
  if (gradients.d_q) {
    launches.add("flash_exact_d_query", odd_blocks, 1, 1, ROW_THREADS);
  }
  if (gradients.d_k || gradients.d_v) {
    launches.add("flash_exact_d_key", odd_blocks, 1, 1, ROW_THREADS);
  }
  return plan;
}

Params bound_params(const Plan& plan, void* memory) {
  Params p = plan.params;
  char* base = static_cast<char*>(memory);
  bind(p.places, base);
  bind(p.groups, base);
  bind(p.tile_counters, base);
  for (Operand* operand : {&p.q16, &p.k16, &p.v16, &p.d_output16}) {
    bind(operand->high, base);
    bind(operand->low, base);
  }
  bind(p.part_output, base);
  bind(p.part_state, base);
  bind(p.lse_high, base);
  bind(p.lse_low, base);
  bind(p.delta, base);
  bind(p.d_q_sums, base);
  return p;
}

std::vector<BuiltKernel> built_kernels() {
  std::vector<BuiltKernel> kernels = {
      {"flash_locate", CONVERT_THREADS, 0}, {"flash_sample", CONVERT_THREADS, 0}, {"flash_clear_rows", 128, 0},
      {"flash_merge", MERGE_THREADS, 0},
      {"flash_row_statistics", ROW_THREADS, 0}, {"flash_exact_d_query", ROW_THREADS, 0},
      {"flash_exact_d_key", ROW_THREADS, 0}, {"flash_exact_d_bias", ROW_THREADS, 0}};
  for (OperandKind kind : {OperandKind::Bf16, OperandKind::F16, OperandKind::SplitF16}) {
    kernels.push_back({std::string("flash_convert_") + name_of(kind), CONVERT_THREADS, 0});
    if (kind != OperandKind::Bf16) {
      kernels.push_back({std::string("flash_convert_again_") + name_of(kind), CONVERT_THREADS, 0});
    }
  }
  for (const ForwardEntry& entry : FORWARD) {
    kernels.push_back({std::string("flash_forward_") + entry.name, entry.threads(), entry.shared_bytes()});
  }
  for (const GradientEntry& entry : GRADIENT) {
    for (const char* what : {"d_query", "d_key", "d_value", "d_key_value"}) {
      const bool is_both = std::string(what) == "d_key_value", is_one = std::string(what) != "d_query" && !is_both;
      if (entry.wide ? !is_both : !is_one) {
        kernels.push_back({std::string("flash_") + what + "_" + entry.name, entry.threads(), entry.shared_bytes()});
      }
    }
  }
  for (const GradientEntry& entry : BIAS) {
    kernels.push_back({std::string("flash_d_bias_") + entry.name, entry.threads(), entry.shared_bytes()});
  }
  for (const RowsEntry& entry : ROWS) {
    kernels.push_back({name_of(entry), ROW_THREADS, entry.shared_bytes()});
  }
  for (const hopper::HopperKernel& kernel : hopper::hopper_kernels()) {
    kernels.push_back({kernel.name, kernel.threads, kernel.shared_bytes});
  }
  return kernels;
}

}  // namespace cuda
}  // namespace flash_attention
