// What the kernels over subgroup matrices share. A workgroup has SUBGROUPS subgroups of LANES lanes. Each owns a strip of
// MATRIX_M rows of the result, in subgroup matrices of f32; the operands are f16 in workgroup memory, in tiles that all
// subgroups read. A subgroup matrix has no elements to look at: scores go through `sums`, and come back as weights.
//
// Places in workgroup memory are bounded by `subgroup % SUBGROUPS` and the like: Dawn then needs no clamp of its own, which
// would also make strides of matrices unknown at compile time, a tenth of the time of the forward pass (H100). Vulkan wants
// a matrix to lie at a multiple of 16 bytes, and Dawn does not see to it: so every variable in workgroup memory is of whole
// 16 bytes. A word among them, and matrices were read 8 bytes off (NOTES.md).
//
// Strides are counted in vec4s and keep rows that are read together in different banks. Whole subgroups run along
// local_invocation_index, as Dawn sees to for subgroup matrices.

alias Left = subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>;
alias Right = subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>;
alias Sums = subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>;

@group(0) @binding(17) var<storage, read> half_q: array<vec4u>; // half.wgsl
@group(0) @binding(18) var<storage, read> half_k: array<vec4u>;
@group(0) @binding(19) var<storage, read> half_v: array<vec4u>;
@group(0) @binding(20) var<storage, read> half_d_output: array<vec4u>;

// K or Q, and V or dO: BLOCK_ROWS rows of each.
var<workgroup> head_tile: array<vec4h, BLOCK_ROWS * HEAD_STRIDE>;
var<workgroup> value_tile: array<vec4h, BLOCK_ROWS * VALUE_STRIDE>;
// f32 from products and, in matrix_dkv, f16 on their way back: bits.
var<workgroup> sums: array<vec4u, SUMS_LENGTH>;

var<private> thread: u32;
var<private> lane: u32;
var<private> subgroup: u32;

fn start_thread(index: u32) {
  thread = index;
  lane = index % LANES;
  subgroup = index / LANES;
}

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

fn fetch_keys(ids: HeadIds, key_0: u32) -> HeadFetch {
  var fetched: HeadFetch;
  let first = half_key_row(ids, key_0) * HEAD_VEC8 + thread;
  for (var n = 0u; n < HEAD_TRIPS; n++) {
    fetched[n] = half_k[first + THREADS * n];
  }
  return fetched;
}

fn fetch_values(ids: HeadIds, key_0: u32) -> ValueFetch {
  var fetched: ValueFetch;
  let first = half_key_row(ids, key_0) * VALUE_VEC8 + thread;
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    fetched[n] = half_v[first + THREADS * n];
  }
  return fetched;
}

fn fetch_queries(ids: HeadIds, query_0: u32) -> HeadFetch {
  var fetched: HeadFetch;
  let first = half_query_row(ids, query_0) * HEAD_VEC8 + thread;
  for (var n = 0u; n < HEAD_TRIPS; n++) {
    fetched[n] = half_q[first + THREADS * n];
  }
  return fetched;
}

fn fetch_d_outputs(ids: HeadIds, query_0: u32) -> ValueFetch {
  var fetched: ValueFetch;
  let first = half_query_row(ids, query_0) * VALUE_VEC8 + thread;
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    fetched[n] = half_d_output[first + THREADS * n];
  }
  return fetched;
}

// softmaxScale, and what q and k were divided by.
fn product_scale() -> f32 {
  return params.scale * power_of_two(half_exponent(largest[Q])) * power_of_two(half_exponent(largest[K]));
}
