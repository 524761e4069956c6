// What changes from call to call. What stays the same for a pipeline (sizes of tiles and heads, masks in use) is a
// constant in the generated header before this text. All kernels share the layout of this struct.

// Where a tensor's element (batch, row, head, 0) lies in the buffer bound to it, in elements:
// base + batch·strides.x + row·strides.y + head·strides.z, everything counted from the start of the window.
struct View {
  base: u32,
  batch: u32,
  row: u32,
  head: u32,
}

// One dispatch covers a window of the problem: the whole of it unless a device limit made the host split it.
struct Params {
  q: View,            // [B,Nq,Hq,D]; dQ lies like q
  k: View,            // [B,Nk,Hkv,D]; dK lies like k
  v: View,            // [B,Nk,Hkv,Dv]; dV lies like v
  output: View,       // [B,Nq,Hq,Dv]; dO lies like the output
  rows: View,         // [B,Hq,Nq] (LSE, dLSE): row stride 1
  statistics: View,   // the same, in vec4s
  mask: View,         // [B|1,Hq|1,Nq|1,words] as bits (mask.wgsl), strides 0 where broadcast
  mask_tensor: View,  // what pack_mask reads: rows of mask_keys elements
  bias: View,         // [B|1,Hq|1,Nq|1,Nk|1], strides 0 where broadcast; its key stride is bias_key
  d_bias: View,       // what backward_dbias writes; see biasGradientShape in src/op/problem
  mask_keys: u32,     // of a row of the mask: Nk or 1
  bias_key: u32,
  d_bias_key: u32,
  d_bias_batches: u32, // 1: backward_dbias sums over the window's batches; the same for heads
  d_bias_heads: u32,
  batch_first: u32,   // first of the window's batches, query heads, queries and keys within the problem
  head_first: u32,
  query_first: u32,
  key_first: u32,
  batches: u32,       // and how many of each
  heads: u32,
  queries: u32,
  keys: u32,
  query_length: u32,  // Nq and Nk of the problem
  key_length: u32,
  query_total: u32,   // rows that sequences may lie in: the lengths, or all rows where sequences lie end to end
  key_total: u32,
  group: u32,         // Hq / Hkv
  heads_per_key: u32, // query heads of the window that share a key head: group, or fewer in a split group
  diagonal: i32,      // causal: key j is seen by query i when j <= i + diagonal (positions within the problem)
  bottom_right: u32,  // 1: the diagonal of a sequence is its keys less its queries; else 0
  window_left: i32,   // key j is seen by query i when i + diagonal - left <= j <= i + diagonal + right
  window_right: i32,
  resume: u32,        // 1: an earlier window left partial results in the outputs; add to them
  scale: f32,         // softmaxScale
  softcap: f32,
  kept_scale: f32,    // 1 / (1 - dropoutP)
  drop_below: u32,    // a weight is dropped when its Philox word is below this
  seed_low: u32,
  seed_high: u32,
  slopes_at: u32,     // places in `table`
  slopes_batch: u32,  // words from one batch's slopes to the next; 0 where they share them
  sinks_at: u32,
  sequences_at: u32,
  key_batches: u32,   // a cache: batches, or pages, of k and v
  page_size: u32,
  pages: u32,         // of one sequence
  splits: u32,        // parts of the keys, each with results of its own, and how many keys each has
  split_keys: u32,
  split_output: u32,  // elements from one part's output to the next, and of its LSE
  split_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// Finite stand-in for the score of a pair that is not seen. WGSL does not promise to handle infinities.
const NOT_SEEN = -3.4028234e38f;
const LARGEST = 3.4028234e38f;

fn negative_infinity() -> f32 {
  var bits = 0xff800000u; // not a constant expression: those must be finite
  return bitcast<f32>(bits);
}

fn not_a_number() -> f32 {
  var bits = 0x7fc00000u;
  return bitcast<f32>(bits);
}

fn any_not_finite(value: vec4f) -> bool {
  let exponent = vec4u(0x7f800000u);
  return any((bitcast<vec4u>(value) & exponent) == exponent);
}

// exp and log that hand a NaN on. WGSL does not promise that, nor that x != x finds one; SwiftShader does neither.
fn exp_or_nan(x: vec4f) -> vec4f {
  let is_nan = (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  return select(exp(x), x, is_nan);
}

fn log_or_nan(x: f32) -> f32 {
  let is_nan = (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
  return select(log(x), x, is_nan);
}

// x, as a number that a compiler knows nothing of: no number of splits has its highest bit set. Some compilers (Mesa's)
// take (a + b) − a for b, which it is not in floating point: of what rounding took from a sum nothing would be left.
fn opaque(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) ^ (params.splits >> 31u));
}

// scale · product, rounded. Kept from being drawn into what is subtracted from it: some compilers (NVIDIA's) then take
// fma(product, scale, −LSE) in one kernel and not in another, and scores in the hundreds differ by a part of their last
// place, weights by as much.
fn scaled_by(product: vec4f, scale: f32) -> vec4f {
  return bitcast<vec4f>(bitcast<vec4u>(product * scale) ^ vec4u(params.splits >> 31u));
}

fn scaled(product: vec4f) -> vec4f {
  return scaled_by(product, params.scale);
}

// What rounding took from fl(a + b) (Knuth's two-sum).
fn rounding_error(a: f32, b: f32) -> f32 {
  let sum = opaque(a + b);
  let b_part = sum - a;
  let a_part = opaque(sum - b_part);
  return (a - a_part) + (b - b_part);
}
