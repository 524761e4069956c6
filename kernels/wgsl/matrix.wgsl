// What the kernels over subgroup matrices share. A workgroup has SUBGROUPS subgroups of LANES lanes. One, or several together,
// own STRIPS strips of MATRIX_M rows of the result, in subgroup matrices of f32; the operands are f16 in workgroup memory, in
// tiles that all subgroups read. A subgroup matrix has no elements to look at: scores go through `sums`, and come back as
// weights.
//
// Places in workgroup memory are bounded by `subgroup % SUBGROUPS` and the like: Dawn then needs no clamp of its own, which
// would also make strides of matrices unknown at compile time, a tenth of the time of the forward pass (H100). Vulkan wants
// a matrix to lie at a multiple of 16 bytes, and Dawn does not see to it: so every variable in workgroup memory is of whole
// 16 bytes. A word among them, and matrices were read 8 bytes off (NOTES.md).
//
// Strides are counted in vec4s and keep rows that are read together in different banks. Whole subgroups run along
// local_invocation_index, as Dawn sees to for subgroup matrices.

// Loops over tiles have a constant for a bound and end by `break`. Of any loop whose end it cannot see in the condition Dawn
// counts the rounds, in 64 bits, to break it off; then the loop has two ends, and NVIDIA's compiler (580.159) copies all that
// outlives it in each round: 64 of 235 instructions of the forward pass at D = 64 (H100, NOTES.md).
const FOREVER = 0x7fffffffu;

alias Left = subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>;
alias Right = subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>;
alias Sums = subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>;

@group(0) @binding(17) var<storage, read> half_q: array<vec4u>; // half.wgsl
@group(0) @binding(18) var<storage, read> half_k: array<vec4u>;
@group(0) @binding(19) var<storage, read> half_v: array<vec4u>;
@group(0) @binding(20) var<storage, read> half_d_output: array<vec4u>;

// f32 from products, and f16 on their way into matrices: bits.
var<workgroup> sums: array<vec4u, SUMS_LENGTH>;

var<private> thread: u32;
var<private> lane: u32;
var<private> subgroup: u32;

fn start_thread(index: u32) {
  thread = index;
  lane = index % LANES;
  subgroup = index / LANES;
}

// What rounding to f16 took from x, times `factor`.
fn rests_of(x: vec4f, halves: vec4h, factor: f32) -> vec4h {
  // As in to_half: not to be taken for x itself.
  let kept = bitcast<vec4h>(bitcast<vec2u>(halves) ^ vec2u(params.splits >> 31u));
  return vec4h((x - vec4f(kept)) * factor);
}

// softmaxScale, and what q and k were divided by.
fn product_scale() -> f32 {
  return params.scale * power_of_two(operand_exponent(Q)) * power_of_two(operand_exponent(K));
}

// A tile, by its first row, and whether a mask hides a pair of it.
struct Tile {
  begin: u32,
  hides: bool,
}

// The first tile of keys from `from_key` on that a mask does not hide; `end` and more if there is none.
fn next_seen(ids: HeadIds, query_0: u32, from_key: u32, end: u32) -> Tile {
  var begin = from_key;
  var look = look_at_tile(ids, query_0, begin);
  for (var tile = 0u; tile < FOREVER; tile++) {
    if (look.shows || begin >= end) {
      break;
    }
    begin += BLOCK_KEYS;
    look = look_at_tile(ids, query_0, begin);
  }
  return Tile(begin, look.hides);
}
