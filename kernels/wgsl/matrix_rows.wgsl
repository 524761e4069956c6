// For kernels whose strips are queries (forward, dQ): scores [query][key] of a strip go through `sums`, weights through
// `weights`. LANES_PER_ROW lanes share a query and take its keys in turns of four. With split operands STRIP_SUBGROUPS
// subgroups may share a strip: each makes the scores of some keys, and sums some columns of the result.

var<workgroup> weights: array<vec4h, SUBGROUPS / STRIP_SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE>;

// The strip's place in the workgroup.
fn strip_place() -> u32 {
  return subgroup % SUBGROUPS / STRIP_SUBGROUPS;
}

fn lane_row() -> u32 {
  return (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW;
}

// Rows of operands on their way into matrices, STAGED_STEPS steps of them at a time: a matrix that is loaded from a storage
// buffer comes by 16 bits at a time, since Dawn makes its stride a variable. A row has its place in `sums`.
const STAGED_VEC8 = STAGED_STEPS * MATRIX_K / 8u;

// The n-th vec4u that this lane takes of what a strip stages: its row, and its place in the row.
fn staged_place(n: u32) -> vec2u {
  let at = lane % LANES + LANES * n;
  return vec2u(at / STAGED_VEC8, at % STAGED_VEC8);
}

// The n-th vec4 of keys that this lane takes of its row.
fn lane_vec4(n: u32) -> u32 {
  return lane % LANES_PER_ROW + LANES_PER_ROW * n;
}

fn sums_at() -> u32 {
  return (strip_place() * MATRIX_M + lane_row()) * SUMS_STRIDE;
}

fn sums_vec4(at: u32) -> vec4f {
  return bitcast<vec4f>(sums[at]);
}

// The first tile of keys from `from_key` on that a mask does not hide; `end` and more if there is none.
fn next_seen(ids: HeadIds, query_0: u32, from_key: u32, end: u32) -> u32 {
  var key_0 = from_key;
  while (key_0 < end) {
    if (is_seen(ids, query_0, key_0)) {
      break;
    }
    key_0 += BLOCK_KEYS;
  }
  return key_0;
}
