// For kernels whose strips are queries (forward, dQ): scores [query][key] of a strip go through `sums`, weights through
// `weights`. LANES_PER_ROW lanes share a query and take its keys in turns of four.

var<workgroup> weights: array<vec4h, SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE>;

fn lane_row() -> u32 {
  return lane % LANES / LANES_PER_ROW;
}

// The n-th vec4 of keys that this lane takes of its row.
fn lane_vec4(n: u32) -> u32 {
  return lane % LANES_PER_ROW + LANES_PER_ROW * n;
}

fn sums_at() -> u32 {
  return (subgroup % SUBGROUPS * MATRIX_M + lane_row()) * SUMS_STRIDE;
}

fn sums_vec4(at: u32) -> vec4f {
  return bitcast<vec4f>(sums[at]);
}
