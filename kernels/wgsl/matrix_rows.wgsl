// For kernels whose strips are queries (forward, dQ): scores [query][key] of a strip go through `sums`, weights through
// `weights`. LANES_PER_ROW lanes share a query and take its keys in turns of four.
//
// Places in workgroup memory are worked out where they are used, from `%` and constants: Tint sees within a function that
// they are in range, and leaves out the clamps.

// Of the type that the matrices have: read as bits, with indices in range, NVIDIA's compiler (580.159) took what it had
// read before for what a matrix had been stored over (wrong outputs on an H100, 2026-11-25).
var<workgroup> sums: array<vec4f, SUMS_LENGTH>;
var<workgroup> weights: array<vec4h, SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE>;

fn lane_row() -> u32 {
  return lane % LANES / LANES_PER_ROW;
}

// The n-th vec4 of keys that this lane takes of its row.
fn lane_vec4(n: u32) -> u32 {
  return lane % LANES_PER_ROW + LANES_PER_ROW * n;
}
