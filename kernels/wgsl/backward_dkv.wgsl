// dV = (P∘keep)ᵀ·dO and dK = softmaxScale · dSᵀ·Q: a workgroup makes the rows of one tile of keys of one key head,
// walking over the query heads that share it and their tiles of queries. One workgroup owns its rows, so the sum is
// made in the same order every time. result_0 is dK, result_1 is dV; they lie like k and v.

fn stage_queries(ids: HeadIds, query_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let query = min(query_0 + row, params.queries - 1u);
      stage_right(row, d4, load_q(view_at(params.q, ids.batch, query, ids.head), head_column(d4)), partial);
    }
  }
}

fn stage_output_gradients(ids: HeadIds, query_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let query = min(query_0 + row, params.queries - 1u);
      let at = view_at(params.output, ids.batch, query, ids.head);
      stage_right(row, d4, load_d_output(at, value_column(d4)), partial);
    }
  }
}

fn add_to_result_0(tile: ptr<function, KeyTile>, ids: HeadIds, key_0: u32) {
  for (var n = 0u; n < 4u * KEY_GROUPS; n++) {
    let key = key_0 + 4u * key_group(n / 4u) + n % 4u;
    if (key < params.keys) {
      let at = view_at(params.k, ids.batch, key, ids.key_head);
      for (var j = 0u; j < COLUMNS; j++) {
        if (column(j) < HEAD_VEC4) {
          var value = (*tile)[n * COLUMNS + j] * params.scale;
          if (params.resume != 0u) {
            value += load_result_0(at, column(j), HEAD_SIZE);
          }
          store_result_0(at, column(j), HEAD_SIZE, value);
        }
      }
    }
  }
}

fn add_to_result_1(tile: ptr<function, KeyTile>, ids: HeadIds, key_0: u32) {
  for (var n = 0u; n < 4u * KEY_GROUPS; n++) {
    let key = key_0 + 4u * key_group(n / 4u) + n % 4u;
    if (key < params.keys) {
      let at = view_at(params.v, ids.batch, key, ids.key_head);
      for (var j = 0u; j < COLUMNS; j++) {
        if (column(j) < VALUE_VEC4) {
          var value = (*tile)[n * COLUMNS + j];
          if (params.resume != 0u) {
            value += load_result_1(at, column(j), VALUE_SIZE);
          }
          store_result_1(at, column(j), VALUE_SIZE, value);
        }
      }
    }
  }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  start_thread(index);
  let tiles = (params.keys + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let key_heads = params.heads / params.heads_per_key;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * key_heads * params.batches) {
    return;
  }
  let batch = item / tiles / key_heads;
  let key_head = item / tiles % key_heads;
  // Under causal masking the first keys are seen by the most queries; they come first.
  let key_0 = item % tiles * BLOCK_KEYS;

  var d_keys = KeyTile();
  var d_values = KeyTile();
  let begin = query_begin(key_0) / BLOCK_QUERIES * BLOCK_QUERIES;
  for (var h = 0u; h < params.heads_per_key; h++) {
    let ids = HeadIds(batch, key_head * params.heads_per_key + h, key_head);
    for (var query_0 = begin; query_0 < params.queries; query_0 += BLOCK_QUERIES) {
      let partial = is_partial(query_0, key_0);
      var weights = Scores();
      make_scores(&weights, ids, query_0, key_0);
      var d_scores = Scores();
      if (WANT_KEYS) {
        make_d_weights(&d_scores, ids, query_0, key_0);
      }
      softmax_gradient(&weights, &d_scores, ids, query_0, key_0, partial);

      if (WANT_VALUES) {
        workgroupBarrier();
        store_weights(&weights);
        for (var step = 0u; step < BLOCK_QUERIES / ROW_CHUNK; step++) {
          workgroupBarrier();
          stage_output_gradients(ids, query_0 + step * ROW_CHUNK, partial);
          workgroupBarrier();
          if (!partial || right_is_clean()) {
            multiply_turned_weights(&d_values, step);
          } else {
            multiply_seen_turned_weights(&d_values, ids, query_0, key_0, step);
          }
        }
      }
      if (WANT_KEYS) {
        workgroupBarrier();
        store_weights(&d_scores);
        for (var step = 0u; step < BLOCK_QUERIES / ROW_CHUNK; step++) {
          workgroupBarrier();
          stage_queries(ids, query_0 + step * ROW_CHUNK, partial);
          workgroupBarrier();
          if (!partial || right_is_clean()) {
            multiply_turned_weights(&d_keys, step);
          } else {
            multiply_seen_turned_weights(&d_keys, ids, query_0, key_0, step);
          }
        }
      }
    }
  }

  let ids = HeadIds(batch, 0u, key_head);
  if (WANT_KEYS) {
    add_to_result_0(&d_keys, ids, key_0);
  }
  if (WANT_VALUES) {
    add_to_result_1(&d_values, ids, key_0);
  }
}
