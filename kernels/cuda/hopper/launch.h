// Which calls the Hopper kernels take, and how they are launched. Plain C++: plan.h carries it, attention.cc makes of it
// what a kernel is given.
#pragma once

#include <vector>

#include "../params.h"
#include "tensor_map.h"
#include "tile_order.h"

namespace flash_attention {
namespace hopper {

/**
 * What the kernels are given: a plain call (no mask, bias, ALiBi, softcap or dropout), a scale above 0, one query head
 * to a unit. The maps are of the canonical operands [units][rows][DP]; those that a kernel does not use are 0.
 */
struct HopperParams {
  TensorMap q, k, v, d_output;
  cuda::Params call;
  TileOrder order;
  /** A word that is 0 when the kernel starts: tiles that blocks have drawn after their first. */
  uint32_t* next_tile;
};

/** `all`: dK, dV, and what `sums` makes dQ of, with other bits every time. */
enum class Pass { forward, keys, queries, all, sums };

/** Whether blocks own keys, and queries come by. */
constexpr bool owns_keys(Pass pass) { return pass == Pass::keys || pass == Pass::all; }

/** A kernel: its blocks own `rows` rows, and the others come by in tiles; of Pass::sums, a block has `rows` queries. */
struct HopperKernel {
  const char* name;
  Pass pass;
  bool is_bfloat16;
  int dp, rows, tile, threads, shared_bytes;
};

/** All that are built. */
const std::vector<HopperKernel>& hopper_kernels();

/**
 * The kernel for a pass of a plain call, or null: where there is none for its head size, or what kernels count with
 * 32 bits would not fit them.
 */
const HopperKernel* find_hopper_kernel(const cuda::Params& call, Pass pass, bool is_bfloat16);

/** What a launch has besides the call. */
struct HopperLaunch {
  Pass pass;
  bool is_bfloat16;
  TileOrder order;
  /** Rows of a box of q and dO, and of k and v. */
  int query_box, key_box;

  int64_t tiles() const { return static_cast<int64_t>(order.heads) * order.tiles; }
  /** Of a device: blocks take tile after tile, but in Pass::sums, where each has one. */
  int64_t blocks(int64_t multiprocessors) const {
    return pass == Pass::sums || tiles() < multiprocessors ? tiles() : multiprocessors;
  }
};

HopperLaunch hopper_launch(const cuda::Params& call, const HopperKernel& kernel);

/** @param call with its workspace. @return CUDA_SUCCESS (0) or the driver's error */
int make_hopper_params(EncodeTensorMap encode, const cuda::Params& call, const HopperLaunch& launch,
                       HopperParams* params);

}  // namespace hopper
}  // namespace flash_attention
