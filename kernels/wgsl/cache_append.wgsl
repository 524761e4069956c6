// Writes new rows of k and v behind those in a cache, where `sequences` says. The new rows are bound as q and dO, which
// have their shapes; result_0 and result_1 are the cache's k and v. One thread a vec4.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let n = (group_id.x + group_id.y * groups.x) * THREADS + index;
  let width = max(HEAD_VEC4, VALUE_VEC4);
  let d4 = n % width;
  let head = n / width % params.heads;
  let row = n / width / params.heads % params.queries;
  let batch = n / width / params.heads / params.queries;
  if (batch >= params.batches) {
    return;
  }
  let ids = head_ids(batch, head);
  if (row >= min(ids.queries, ids.keys)) {
    return;
  }
  if (d4 < HEAD_VEC4) {
    store_result_0(key_at(params.k, ids, row), d4, HEAD_SIZE, load_q(query_at(params.q, ids, row), d4));
  }
  if (d4 < VALUE_VEC4) {
    store_result_1(key_at(params.v, ids, row), d4, VALUE_SIZE, load_d_output(query_at(params.output, ids, row), d4));
  }
}
