// dQ = softmaxScale · dS·K: a workgroup makes the rows of one tile of queries of one head, walking over the tiles of
// keys. result_0 is dQ, which lies like q.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  if (!is_for_this_kernel()) {
    return;
  }
  start_thread(index);
  let tiles = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * params.heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles, params.heads * params.batches);
  let ids = head_ids(place.head / params.heads, place.head % params.heads);
  let query_0 = (tiles - 1u - place.tile) * BLOCK_QUERIES;

  if (query_0 >= ids.query_rows) {
    return;
  }

  var accumulator = QueryTile();
  let begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  let end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  for (var key_0 = begin; key_0 < end; key_0 += BLOCK_KEYS) {
    let look = look_at_tile(ids, query_0, key_0);
    if (!look.shows) {
      continue;
    }
    let partial = is_partial(ids, query_0, key_0, look.hides);
    var scores = Scores();
    make_scores(&scores, ids, query_0, key_0);
    var d_scores = Scores();
    make_d_weights(&d_scores, ids, query_0, key_0);
    softmax_gradient(&scores, &d_scores, ids, query_0, key_0, partial);
    workgroupBarrier();
    store_weights(&d_scores);
    for (var step = 0u; step < BLOCK_KEYS / ROW_CHUNK; step++) {
      workgroupBarrier();
      stage_key_rows(ids, key_0 + step * ROW_CHUNK, partial);
      workgroupBarrier();
      if (!partial || right_is_clean()) {
        multiply_weights(&accumulator, step);
      } else {
        multiply_seen_weights(&accumulator, ids, query_0, key_0, step);
      }
    }
  }

  for (var i = 0u; i < ROWS; i++) {
    let query = query_0 + query_row(i);
    if (query < ids.query_rows) {
      let at = query_at(params.q, ids, query);
      let empty = is_empty_row(statistics_of(ids, query));
      for (var j = 0u; j < COLUMNS; j++) {
        if (column(j) < HEAD_VEC4) {
          var value = select(accumulator[i * COLUMNS + j] * params.scale, vec4f(), empty);
          if (params.resume != 0u) {
            value += load_result_0(at, column(j), HEAD_SIZE);
          }
          store_result_0(at, column(j), HEAD_SIZE, value);
        }
      }
    }
  }
}
