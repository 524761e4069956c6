// merge_splits for many rows: VALUE_VEC4 threads take a row, ROWS of them side by side, and go through its parts.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let item = (group_id.x + group_id.y * groups.x) * ROWS + index / VALUE_VEC4;
  let query = item % params.queries;
  let head = item / params.queries % params.heads;
  let batch = item / params.queries / params.heads;
  if (index >= ROWS * VALUE_VEC4 || batch >= params.batches) {
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
  let d4 = index % VALUE_VEC4;
  let at = query_at(params.output, ids, query);
  var total = 0.0;
  var sum = vec4f();
  for (var first = 0u; first < params.splits; first += AT_ONCE) {
    var weights: array<f32, AT_ONCE>;
    var values: array<vec4f, AT_ONCE>;
    for (var n = 0u; n < AT_ONCE; n++) {
      let s = min(first + n, params.splits - 1u);
      weights[n] = part_weight(row, s, largest);
      values[n] = load_saved_output(at + s * params.split_output, d4);
    }
    for (var n = 0u; n < AT_ONCE; n++) {
      if (first + n < params.splits) {
        total += weights[n];
        sum += select(weights[n] * values[n], vec4f(), weights[n] == 0.0); // what such a part wrote may be anything
      }
    }
  }
  store_merged(ids, query, d4, largest, total, sum);
}
