// Joins the parts that a forward pass with SPLIT made, by their LSE: O = Σ exp(LSE_s − LSE)·O_s. One workgroup a row,
// one thread a vec4 of it. saved_output holds the parts [splits, …output], result_0 becomes the output.

@group(0) @binding(9) var<storage, read_write> lse: array<f32>;       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read_write> lse_tail: array<f32>; // the same
@group(0) @binding(11) var<storage, read> part_lse: array<f32>;       // [splits,B,Hq,Nq]
@group(0) @binding(12) var<storage, read> part_tail: array<f32>;      // the same

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let item = group_id.x + group_id.y * groups.x;
  let query = item % params.queries;
  let head = item / params.queries % params.heads;
  let batch = item / params.queries / params.heads;
  if (batch >= params.batches) {
    return;
  }
  let ids = head_ids(batch, head);
  if (query >= ids.query_rows) {
    return;
  }
  let row = query_at(params.rows, ids, query);
  var largest = NOT_SEEN;
  for (var s = 0u; s < params.splits; s++) {
    largest = max(largest, part_lse[row + s * params.split_rows]);
  }
  var total = 0.0;
  for (var s = 0u; s < params.splits; s++) {
    total += part_weight(row, s, largest);
  }
  let empty = total == 0.0;
  let at = query_at(params.output, ids, query);
  for (var d4 = index; d4 < VALUE_VEC4; d4 += THREADS) {
    var sum = vec4f();
    for (var s = 0u; s < params.splits; s++) {
      let weight = part_weight(row, s, largest);
      if (weight != 0.0) {
        sum += weight * load_saved_output(at + s * params.split_output, d4);
      }
    }
    store_result_0(at, d4, VALUE_SIZE, select(sum / total, vec4f(), empty));
  }
  if (index == 0u) {
    // As in the forward kernel: the sum of two floats and its exact rest.
    let log_total = log_or_nan(total);
    let sum = largest + log_total;
    let log_part = sum - largest;
    let tail = (largest - (sum - log_part)) + (log_total - log_part);
    lse[row] = select(sum, negative_infinity(), empty);
    lse_tail[row] = select(tail, 0.0, empty);
  }
}

// exp(LSE of a part − the largest); 0 where the part saw no key, NaN where its LSE is NaN.
fn part_weight(row: u32, s: u32, largest: f32) -> f32 {
  let part = part_lse[row + s * params.split_rows];
  if (part < NOT_SEEN) {
    return 0.0;
  }
  return exp_or_nan(vec4f(part - largest + part_tail[row + s * params.split_rows])).x;
}
