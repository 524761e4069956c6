// For forward kernels, whose strips are queries. STRIP_SUBGROUPS subgroups share STRIPS strips: each makes the scores of some
// keys of a tile, and sums some columns of the result. So it holds fewer of the sums.
//
// A strip has MATRIX_M rows of `sums`, a subgroup an area of each row: for its scores on their way to the lanes, and its
// columns on their way out. LANES_PER_ROW lanes share a query, LANES_PER_AREA of them what an area holds of it, in turns of
// four.

// BLOCK_ROWS rows of K and of V.
var<workgroup> head_tile: array<vec4h, BLOCK_ROWS * HEAD_STRIDE>;
var<workgroup> value_tile: array<vec4h, BLOCK_ROWS * VALUE_STRIDE>;
// Of all strips: [query][key].
var<workgroup> weights: array<vec4h, SUBGROUPS / STRIP_SUBGROUPS * STRIPS * MATRIX_M * WEIGHTS_STRIDE>;

// A thread's share of a tile on its way from global memory.
alias HeadFetch = array<vec4u, HEAD_TRIPS>;
alias ValueFetch = array<vec4u, VALUE_TRIPS>;

fn store_head_tile(fetched: ptr<function, HeadFetch>) {
  for (var n = 0u; n < HEAD_TRIPS; n++) {
    let row = (thread % THREADS + THREADS * n) / HEAD_VEC8;
    let d8 = (thread % THREADS + THREADS * n) % HEAD_VEC8;
    if (HEAD_EXACT || row < BLOCK_ROWS) {
      head_tile[row * HEAD_STRIDE + 2u * d8] = bitcast<vec4h>((*fetched)[n].xy);
      head_tile[row * HEAD_STRIDE + 2u * d8 + 1u] = bitcast<vec4h>((*fetched)[n].zw);
    }
  }
}

fn store_value_tile(fetched: ptr<function, ValueFetch>) {
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    let row = (thread % THREADS + THREADS * n) / VALUE_VEC8;
    let d8 = (thread % THREADS + THREADS * n) % VALUE_VEC8;
    if (VALUE_EXACT || row < BLOCK_ROWS) {
      value_tile[row * VALUE_STRIDE + 2u * d8] = bitcast<vec4h>((*fetched)[n].xy);
      value_tile[row * VALUE_STRIDE + 2u * d8 + 1u] = bitcast<vec4h>((*fetched)[n].zw);
    }
  }
}

const STRIP_SUMS = MATRIX_M * SUMS_STRIDE;
const AREA_VEC4 = BLOCK_ROWS / 4u / STRIP_SUBGROUPS;

// The place of the subgroup's strips among those of the workgroup.
fn strip_place() -> u32 {
  return subgroup % SUBGROUPS / STRIP_SUBGROUPS;
}

fn lane_row() -> u32 {
  return (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW;
}

// The area that this lane reads, among those of its strip.
fn lane_area() -> u32 {
  return lane % LANES_PER_ROW / LANES_PER_AREA;
}

// The n-th vec4 that this lane takes of its row in its area.
fn lane_vec4(n: u32) -> u32 {
  return lane % LANES_PER_AREA + LANES_PER_AREA * n;
}

// The key of the tile that the n-th vec4 of scores begins with.
fn lane_key(n: u32) -> u32 {
  return lane_area() * (BLOCK_ROWS / STRIP_SUBGROUPS) + 4u * lane_vec4(n);
}

// Where this lane's area of its row of strip r begins.
fn sums_at(r: u32) -> u32 {
  return (strip_place() * STRIPS + r) * STRIP_SUMS + lane_row() * SUMS_STRIDE + lane_area() * AREA_VEC4;
}

fn sums_vec4(at: u32) -> vec4f {
  return bitcast<vec4f>(sums[at]);
}

// Rows of operands on their way into matrices, STAGED_STEPS steps of them at a time: a matrix that is loaded from a storage
// buffer comes by 16 bits at a time, since Dawn makes its stride a variable. A row has its place in the subgroup's area.
const STAGED_VEC8 = STAGED_STEPS * MATRIX_K / 8u;

// A lane's share of what a subgroup stages of all strips.
alias Staged = array<vec4u, PASSES * STRIPS * STAGED_TRIPS>;

// The n-th vec4u that this lane takes of what a subgroup stages: its row, and its place in the row.
fn staged_place(n: u32) -> vec2u {
  let at = lane % LANES + LANES * n;
  return vec2u(at / STAGED_VEC8, at % STAGED_VEC8);
}

// Pass p of what has been fetched, into the subgroup's areas. Rows that matrices do not have (N < M) are left out.
fn stage(staged: ptr<function, Staged>, p: u32, rows: u32) {
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < STAGED_TRIPS; n++) {
      let at = lane % LANES + LANES * n;
      if (at / STAGED_VEC8 < rows) {
        sums[(subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * STRIP_SUMS + subgroup % STRIP_SUBGROUPS * AREA_VEC4 +
             at / STAGED_VEC8 * SUMS_STRIDE + at % STAGED_VEC8] = (*staged)[(p * STRIPS + r) * STAGED_TRIPS + n];
      }
    }
  }
}
