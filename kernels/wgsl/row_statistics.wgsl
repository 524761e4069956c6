// First step of the backward pass: for each query, LSE, exp(−tail) and D = rowsum(dO∘O) − dLSE side by side, so that the
// kernels after it read them from one buffer. A row that sees no key (LSE = −∞) gets LSE = LARGEST: exp(S − LARGEST) = 0.
//
// One thread a row, adding in the same order as multiply_scores adds dO·Vᵀ: for a query that sees a single key O = V,
// and dS = P∘(dO·Vᵀ − D) is then exactly the zero it should be.

@group(0) @binding(9) var<storage, read> lse: array<f32>;                       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read> lse_tail: array<f32>;                 // the same
@group(0) @binding(11) var<storage, read> d_lse: array<f32>;                    // the same; read if HAS_LSE_GRADIENT
@group(0) @binding(12) var<storage, read_write> row_statistics: array<vec4f>;   // the same: LSE, exp(−tail), D, 0

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let tiles = (params.queries + THREADS - 1u) / THREADS;
  let item = group_id.x + group_id.y * groups.x;
  let batch = item / tiles / params.heads;
  let head = item / tiles % params.heads;
  let query = item % tiles * THREADS + index;
  if (batch >= params.batches) {
    return;
  }
  let ids = head_ids(batch, head);
  if (query >= ids.query_rows) {
    return;
  }
  let at = query_at(params.output, ids, query);
  var sum = 0.0;
  for (var d4 = 0u; d4 < VALUE_VEC4; d4++) {
    let output = load_saved_output(at, d4);
    let d_output = load_d_output(at, d4);
    sum = fma(d_output.x, output.x, sum);
    sum = fma(d_output.y, output.y, sum);
    sum = fma(d_output.z, output.z, sum);
    sum = fma(d_output.w, output.w, sum);
  }
  let row = query_at(params.rows, ids, query);
  if (HAS_LSE_GRADIENT) {
    sum -= d_lse[row];
  }
  let value = lse[row];
  // exp(−tail), to all of its digits. As a factor: a compiler may add up two subtrahends first, and the tail is lost.
  row_statistics[query_at(params.statistics, ids, query)] =
      vec4f(select(value, LARGEST, value < NOT_SEEN), 1.0 - lse_tail[row], sum, 0.0);
}
