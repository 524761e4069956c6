// dV = (P∘keep)ᵀ·dO and dK = softmaxScale · dSᵀ·Q: a workgroup makes the rows of one tile of keys of one key head,
// walking over the query heads that share it and their tiles of queries. One workgroup owns its rows, so the sum is
// made in the same order every time. result_0 is dK, result_1 is dV (which may be the same buffer: shared_result.wgsl);
// they lie like k and v.

// A row of q or dO as it is staged: 0 times what an empty row holds must stay 0.
fn without_empty_row(value: vec4f, ids: HeadIds, query: u32) -> vec4f {
  if (any_not_finite(value) && is_empty_row(statistics_of(ids, query))) {
    return vec4f();
  }
  return value;
}

fn stage_queries(ids: HeadIds, query_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let query = min(query_0 + row, ids.queries - 1u);
      let value = load_q(query_at(params.q, ids, query), head_column(d4));
      stage_right(row, d4, without_empty_row(value, ids, query), partial);
    }
  }
}

fn stage_output_gradients(ids: HeadIds, query_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let query = min(query_0 + row, ids.queries - 1u);
      let value = load_d_output(query_at(params.output, ids, query), value_column(d4));
      stage_right(row, d4, without_empty_row(value, ids, query), partial);
    }
  }
}

fn add_to_result_0(tile: ptr<function, KeyTile>, ids: HeadIds, key_0: u32) {
  for (var n = 0u; n < 4u * KEY_GROUPS; n++) {
    let key = key_0 + 4u * key_group(n / 4u) + n % 4u;
    if (key < ids.key_rows) {
      let at = key_at(params.k, ids, key);
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
    if (key < ids.key_rows) {
      let at = key_at(params.v, ids, key);
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
  if (!is_for_this_kernel()) {
    return;
  }
  start_thread(index);
  let tiles = (params.keys + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let key_heads = params.heads / params.heads_per_key;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * key_heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles, key_heads * params.batches);
  let batch = place.head / key_heads;
  let key_head = place.head % key_heads;
  // Under causal masking the first keys are seen by the most queries; they come first.
  let key_0 = place.tile * BLOCK_KEYS;
  let of_keys = head_ids(batch, key_head * params.heads_per_key);
  if (key_0 >= of_keys.key_rows) {
    return;
  }

  var d_keys = KeyTile();
  var d_values = KeyTile();
  let begin = query_begin(of_keys, key_0) / BLOCK_QUERIES * BLOCK_QUERIES;
  let end = select(0u, query_end(of_keys, min(key_0 + BLOCK_KEYS, of_keys.keys) - 1u), key_0 < of_keys.keys);
  for (var h = 0u; h < params.heads_per_key; h++) {
    var ids = of_keys;
    ids.head += h;
    for (var query_0 = begin; query_0 < end; query_0 += BLOCK_QUERIES) {
      let look = look_at_tile(ids, query_0, key_0);
      if (!look.shows) {
        continue;
      }
      let partial = is_partial(ids, query_0, key_0, look.hides);
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

  if (WANT_KEYS) {
    add_to_result_0(&d_keys, of_keys, key_0);
  }
  if (WANT_VALUES) {
    add_to_result_1(&d_values, of_keys, key_0);
  }
}
