#include "launch.h"

#include "plans.h"

namespace flash_attention {
namespace hopper {
namespace {

template <typename Plan>
HopperKernel kernel_of(const char* name, Pass pass, bool is_bfloat16) {
  return {name, pass, is_bfloat16, Plan::DEPTH, Plan::ROWS, Plan::TILE, Plan::THREADS, Plan::BYTES};
}

template <typename Plan>
HopperKernel sums_of(const char* name, bool is_bfloat16) {
  return {name, Pass::sums, is_bfloat16, Plan::DEPTH, Plan::TILE, 0, FINISH_THREADS, 0};
}

}  // namespace

const std::vector<HopperKernel>& hopper_kernels() {
  static const std::vector<HopperKernel> kernels = {
      kernel_of<Forward64>("hopper_forward_bf16_64", Pass::forward, true),
      kernel_of<Forward64>("hopper_forward_f16_64", Pass::forward, false),
      kernel_of<Forward128>("hopper_forward_bf16_128", Pass::forward, true),
      kernel_of<Forward128>("hopper_forward_f16_128", Pass::forward, false),
      kernel_of<Forward256>("hopper_forward_bf16_256", Pass::forward, true),
      kernel_of<Forward256>("hopper_forward_f16_256", Pass::forward, false),
      kernel_of<KeyGradient64>("hopper_key_gradient_bf16_64", Pass::keys, true),
      kernel_of<KeyGradient64>("hopper_key_gradient_f16_64", Pass::keys, false),
      kernel_of<KeyGradient128>("hopper_key_gradient_bf16_128", Pass::keys, true),
      kernel_of<KeyGradient128>("hopper_key_gradient_f16_128", Pass::keys, false),
      kernel_of<AddedGradient64>("hopper_added_gradient_bf16_64", Pass::all, true),
      kernel_of<AddedGradient64>("hopper_added_gradient_f16_64", Pass::all, false),
      kernel_of<AddedGradient128>("hopper_added_gradient_bf16_128", Pass::all, true),
      kernel_of<AddedGradient128>("hopper_added_gradient_f16_128", Pass::all, false),
      sums_of<AddedGradient64>("hopper_query_sums_bf16_64", true),
      sums_of<AddedGradient64>("hopper_query_sums_f16_64", false),
      sums_of<AddedGradient128>("hopper_query_sums_bf16_128", true),
      sums_of<AddedGradient128>("hopper_query_sums_f16_128", false),
      kernel_of<QueryGradient64>("hopper_query_gradient_bf16_64", Pass::queries, true),
      kernel_of<QueryGradient64>("hopper_query_gradient_f16_64", Pass::queries, false),
      kernel_of<QueryGradient128>("hopper_query_gradient_bf16_128", Pass::queries, true),
      kernel_of<QueryGradient128>("hopper_query_gradient_f16_128", Pass::queries, false)};
  return kernels;
}

const HopperKernel* find_hopper_kernel(const cuda::Params& call, Pass pass, bool is_bfloat16) {
  for (const HopperKernel& kernel : hopper_kernels()) {
    if (kernel.pass == pass && kernel.is_bfloat16 == is_bfloat16 && kernel.dp == call.dp) {
      const int64_t length = owns_keys(pass) ? call.key_length : call.query_length;
      const int64_t tiles = (length + kernel.rows - 1) / kernel.rows;
      // Indices of tiles, with those that blocks draw past the end, and of rows of all units.
      const bool fits = tiles * call.batch * call.query_heads < (1 << 30) &&
          call.query_heads * call.query_place.rows < INT32_MAX - 1024 && call.key_place.rows < INT32_MAX - 1024;
      return call.heads_per_unit == 1 && fits ? &kernel : nullptr;
    }
  }
  return nullptr;
}

HopperLaunch hopper_launch(const cuda::Params& call, const HopperKernel& kernel) {
  const bool by_keys = owns_keys(kernel.pass);
  const int group = call.query_heads / call.key_heads;
  const int length = by_keys ? call.key_length : call.query_length;
  const int64_t other = by_keys ? call.query_length : call.key_length;
  HopperLaunch launch = {kernel.pass, kernel.is_bfloat16, {}, by_keys ? kernel.tile : kernel.rows,
                         by_keys ? kernel.rows : kernel.tile};
  launch.order.heads = call.batch * (by_keys ? call.key_heads : call.query_heads);
  launch.order.tiles = length / kernel.rows + (length % kernel.rows != 0);
  // Two operands of 16 bits, and sums of 32.
  const int bytes = kernel.pass == Pass::all ? 8 : 4;
  launch.order.section =
      section_heads(launch.order.heads, by_keys ? 1 : group, other * call.dp * bytes * (by_keys ? group : 1));
  launch.order.descending = !by_keys;
  return launch;
}

int make_hopper_params(EncodeTensorMap encode, const cuda::Params& call, const HopperLaunch& launch,
                       HopperParams* params) {
  *params = {};
  params->call = call;
  params->order = launch.order;
  params->next_tile = call.tile_counters + static_cast<int>(launch.pass);
  if (launch.pass == Pass::sums) {
    return 0;
  }
  const auto map = [&](TensorMap* to, const cuda::Operand& operand, bool is_query) {
    const int heads = is_query ? call.query_heads : call.key_heads;
    const cuda::CanonicalRows& rows = is_query ? call.query_place : call.key_place;
    return encode_tensor_map(encode, to, operand.high,
                             tensor_map_fields(launch.is_bfloat16, heads, rows.rows, call.dp,
                                               is_query ? launch.query_box : launch.key_box));
  };
  int result = map(&params->q, call.q16, true);
  result = result ? result : map(&params->k, call.k16, false);
  result = result ? result : map(&params->v, call.v16, false);
  if (launch.pass != Pass::forward) {
    result = result ? result : map(&params->d_output, call.d_output16, true);
  }
  return result;
}

}  // namespace hopper
}  // namespace flash_attention
