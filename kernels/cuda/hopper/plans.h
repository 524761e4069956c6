// The shapes of the Hopper kernels: tiles, buffers, shared memory and registers, counted for the host and the device.
#pragma once

#include "../params.h"
#include "layouts.h"

namespace flash_attention {
namespace hopper {

/** What a block of Hopper may have of shared memory, and registers of a multiprocessor. */
constexpr int SHARED_BYTES = 232448;
constexpr int REGISTERS = 65536;

/** Of TileQueue. */
constexpr int QUEUE_BYTES = 48;

FLASH_SHARED_CODE constexpr int tile_bytes(int rows, int columns) { return rows * columns * 2; }

/** Registers of a thread of the producer's group, and of the 2 or 3 consumer groups that share what is left. */
template <int GROUPS>
struct RegisterShare {
  static constexpr int PRODUCER = GROUPS == 2 ? 24 : 32, CONSUMER = GROUPS == 2 ? 240 : 160;
  static_assert((PRODUCER + GROUPS * CONSUMER) * GROUP_THREADS <= REGISTERS, "registers");
};

/**
 * What walks past in tiles must end with a batch's canonical rows: what lies behind them may hold anything, and 0 times
 * a NaN is not 0. Tiles of 96 queries made dK and dV of D=64 5% faster, but would need zeros there.
 */
constexpr bool ends_with_rows(int tile) { return cuda::TILE_ROWS % tile == 0; }

/** Forward: GROUPS warpgroups of 64 queries each walk tiles of KEYS keys; K and V have STAGES buffers each. */
template <int DP, int GROUPS, int KEYS, int STAGES>
struct ForwardPlan {
  static constexpr int DEPTH = DP, CONSUMERS = GROUPS, TILE = KEYS, BUFFERS = STAGES;
  static constexpr int ROWS = GROUPS * GROUP_ROWS;
  static constexpr int THREADS = (GROUPS + 1) * GROUP_THREADS;
  static constexpr int QUERY_BYTES = tile_bytes(ROWS, DP), KEY_BYTES = tile_bytes(KEYS, DP);
  static constexpr int KEYS_AT = QUERY_BYTES, VALUES_AT = KEYS_AT + STAGES * KEY_BYTES;
  /** Barriers: q full, q empty, then of each stage k full, k empty, v full, v empty. */
  static constexpr int BARRIERS_AT = VALUES_AT + STAGES * KEY_BYTES;
  static constexpr int BARRIERS = 2 + 4 * STAGES;
  static constexpr int QUEUE_AT = BARRIERS_AT + BARRIERS * 8;
  /** Asked for, with what aligning its start can cost. */
  static constexpr int BYTES = QUEUE_AT + QUEUE_BYTES + SWIZZLE_BYTES;
  static_assert(BYTES <= SHARED_BYTES, "shared memory");
  static_assert(ends_with_rows(KEYS) && KEYS % 16 == 0 && DP % PANEL_COLUMNS == 0, "shapes of wgmma and TMA");
};

/** What a warp adds to dQ at a time: 16 queries × 64 columns, float32, in an order of their own (query_sums.cuh). */
constexpr int SUM_ROWS = 16, SUM_COLUMNS = 64, SUM_BYTES = SUM_ROWS * SUM_COLUMNS * 4;

/** Of the kernel that makes dQ of the sums of a tile: a warp for each of those that have added. */
constexpr int FINISH_THREADS = 256;

/** How a kernel of dK and dV adds dQ too; 0: it leaves dQ to another. SHARED: products of dK read dSᵀ from shared memory. */
constexpr int ADDED = 1, SHARED = 2;

/** dK and dV, maybe dQ: GROUPS warpgroups own 64 keys each and walk tiles of QUERIES rows of q and dO. */
template <int DP, int GROUPS, int QUERIES, int STAGES, int D_QUERY = 0>
struct KeyGradientPlan {
  static constexpr bool ADDS = D_QUERY & ADDED, SHARES_D_SCORES = D_QUERY & SHARED;
  static constexpr int DEPTH = DP, CONSUMERS = GROUPS, TILE = QUERIES, BUFFERS = STAGES;
  static constexpr int ROWS = GROUPS * GROUP_ROWS;
  static constexpr int THREADS = (GROUPS + 1) * GROUP_THREADS;
  static constexpr int KEY_BYTES = tile_bytes(ROWS, DP), QUERY_BYTES = tile_bytes(QUERIES, DP);
  static constexpr int VALUES_AT = KEY_BYTES, QUERIES_AT = 2 * KEY_BYTES;
  static constexpr int D_OUTPUTS_AT = QUERIES_AT + STAGES * QUERY_BYTES;
  /** Two buffers of dSᵀ, keys × queries, and what each warp adds to dQ. */
  static constexpr int D_SCORE_BYTES = ADDS ? tile_bytes(ROWS, QUERIES) : 0;
  static constexpr int D_SCORES_AT = D_OUTPUTS_AT + STAGES * QUERY_BYTES, SUMS_AT = D_SCORES_AT + 2 * D_SCORE_BYTES;
  /** Of each stage LSE and D: floats of the tile's rows. */
  static constexpr int ROW_BYTES = QUERIES * 4;
  static constexpr int ROWS_AT = SUMS_AT + (ADDS ? GROUPS * 4 * SUM_BYTES : 0);
  /** Barriers: keys full, keys empty, then of each stage full, empty. */
  static constexpr int BARRIERS_AT = ROWS_AT + STAGES * 2 * ROW_BYTES;
  static constexpr int BARRIERS = 2 + 2 * STAGES;
  static constexpr int QUEUE_AT = BARRIERS_AT + BARRIERS * 8;
  static constexpr int BYTES = QUEUE_AT + QUEUE_BYTES + SWIZZLE_BYTES;
  static_assert(BYTES <= SHARED_BYTES, "shared memory");
  static_assert(ends_with_rows(QUERIES) && QUERIES % 16 == 0, "wgmma, and rows of LSE that bulk copies take");
  static_assert(!ADDS || QUERIES * DP == GROUPS * GROUP_ROWS * SUM_COLUMNS, "a warpgroup has 64 × 64 of a tile's dQ");
};

/** dQ: GROUPS warpgroups own 64 queries each and walk tiles of KEYS keys. */
template <int DP, int GROUPS, int KEYS, int STAGES>
struct QueryGradientPlan {
  static constexpr int DEPTH = DP, CONSUMERS = GROUPS, TILE = KEYS, BUFFERS = STAGES;
  static constexpr int ROWS = GROUPS * GROUP_ROWS;
  static constexpr int THREADS = (GROUPS + 1) * GROUP_THREADS;
  static constexpr int QUERY_BYTES = tile_bytes(ROWS, DP), KEY_BYTES = tile_bytes(KEYS, DP);
  static constexpr int D_OUTPUTS_AT = QUERY_BYTES, KEYS_AT = 2 * QUERY_BYTES;
  static constexpr int VALUES_AT = KEYS_AT + STAGES * KEY_BYTES;
  /** Barriers: q and dO full, empty, then of each stage k full, k empty, v full, v empty. */
  static constexpr int BARRIERS_AT = VALUES_AT + STAGES * KEY_BYTES;
  static constexpr int BARRIERS = 2 + 4 * STAGES;
  static constexpr int QUEUE_AT = BARRIERS_AT + BARRIERS * 8;
  static constexpr int BYTES = QUEUE_AT + QUEUE_BYTES + SWIZZLE_BYTES;
  static_assert(BYTES <= SHARED_BYTES, "shared memory");
  static_assert(ends_with_rows(KEYS) && KEYS % 16 == 0, "shapes of wgmma");
};

// The plans that are built. Names of kernels end in the head size.
using Forward64 = ForwardPlan<64, 3, 128, 2>;
using Forward128 = ForwardPlan<128, 2, 128, 2>;
using Forward256 = ForwardPlan<256, 2, 64, 2>;
using KeyGradient64 = KeyGradientPlan<64, 2, 64, 3>;
using KeyGradient128 = KeyGradientPlan<128, 2, 64, 2>;
/** dK, dV and dQ in one. */
using AddedGradient64 = KeyGradientPlan<64, 2, 128, 2, ADDED | SHARED>;
using AddedGradient128 = KeyGradientPlan<128, 2, 64, 2, ADDED>;
using QueryGradient64 = QueryGradientPlan<64, 2, 128, 3>;
using QueryGradient128 = QueryGradientPlan<128, 2, 64, 3>;

}  // namespace hopper
}  // namespace flash_attention
