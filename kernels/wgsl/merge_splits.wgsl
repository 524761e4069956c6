// Joins the parts that a forward pass with SPLIT made, by their LSE: O = Σ exp(LSE_s − LSE)·O_s. One workgroup a row.
// MERGE_SLOTS groups of VALUE_VEC4 threads each take every MERGE_SLOTS-th part, one thread a vec4 of the row: with one
// query there is little else to keep a GPU busy, and what counts is how few loads wait for each other.

var<workgroup> maxima: array<f32, THREADS>;
var<workgroup> totals: array<f32, THREADS>;
var<workgroup> sums: array<vec4f, THREADS>;

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
  for (var s = index; s < params.splits; s += THREADS) {
    largest = max(largest, part_lse[row + s * params.split_rows]);
  }
  maxima[index] = largest;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if (index < half) {
      maxima[index] = max(maxima[index], maxima[index + half]);
    }
    workgroupBarrier();
  }
  largest = maxima[0];

  let slot = index / VALUE_VEC4;
  let d4 = index % VALUE_VEC4;
  let at = query_at(params.output, ids, query);
  var total = 0.0;
  var sum = vec4f();
  if (slot < MERGE_SLOTS) {
    for (var first = slot; first < params.splits; first += AT_ONCE * MERGE_SLOTS) {
      var weights: array<f32, AT_ONCE>;
      var values: array<vec4f, AT_ONCE>;
      for (var n = 0u; n < AT_ONCE; n++) {
        let s = min(first + n * MERGE_SLOTS, params.splits - 1u);
        weights[n] = part_weight(row, s, largest);
        values[n] = load_saved_output(at + s * params.split_output, d4);
      }
      for (var n = 0u; n < AT_ONCE; n++) {
        if (first + n * MERGE_SLOTS < params.splits) {
          total += weights[n];
          // A part that saw no key wrote zeros; one that has no weight for another reason may hold a NaN.
          sum += select(weights[n] * values[n], vec4f(), weights[n] == 0.0);
        }
      }
    }
  }
  totals[index] = total;
  sums[index] = sum;
  workgroupBarrier();
  if (slot > 0u) {
    return;
  }
  for (var n = 1u; n < MERGE_SLOTS; n++) {
    total += totals[index + n * VALUE_VEC4];
    sum += sums[index + n * VALUE_VEC4];
  }
  store_merged(ids, query, d4, largest, total, sum);
}
