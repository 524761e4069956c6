// Rows of q, k and v on their way into workgroup memory, and the scores made of them.
//
// A row past the end of the window or of its sequence reads the last row instead: what comes of it is either not stored (queries) or has
// weight 0 (keys), and a tile that reaches past the end counts as partial, so that a NaN in the last row stays there.
// Elements past the end of a row are 0, since they are summed over.
//
// The loops run a constant number of times, so that a compiler can unroll them and have all loads of a thread in
// flight at once.

fn query_vec4(ids: HeadIds, query: u32, d4: u32) -> vec4f {
  if (HEAD_VEC4 % CHUNK != 0u && d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_q(query_at(params.q, ids, min(query, ids.query_rows - 1u)), d4);
}

fn key_vec4(ids: HeadIds, key: u32, d4: u32) -> vec4f {
  if (HEAD_VEC4 % CHUNK != 0u && d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_k(key_at(params.k, ids, min(key, ids.keys - 1u)), d4);
}

fn value_vec4(ids: HeadIds, key: u32, d4: u32) -> vec4f {
  if (VALUE_VEC4 % CHUNK != 0u && d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_v(key_at(params.v, ids, min(key, ids.keys - 1u)), d4);
}

// Vec4 of a row of `right`, or the row's last one: columns of `right` past the row's end are not stored.
fn head_column(d4: u32) -> u32 {
  return min(d4, HEAD_VEC4 - 1u);
}

fn value_column(d4: u32) -> u32 {
  return min(d4, VALUE_VEC4 - 1u);
}

// A thread's n-th element of a tile of LEFT_TRIPS, TURNED_TRIPS or RIGHT_TRIPS elements a thread.
fn nth(n: u32) -> u32 {
  return thread + THREADS * n;
}

fn stage_query_rows(ids: HeadIds, query_0: u32, d4: u32) {
  for (var n = 0u; n < LEFT_TRIPS; n++) {
    let row = nth(n) / CHUNK;
    let part = nth(n) % CHUNK;
    if (LEFT_EXACT || row < BLOCK_QUERIES) {
      left[row * LEFT_STRIDE + part] = query_vec4(ids, query_0 + row, d4 + part);
    }
  }
}

fn stage_turned_keys(ids: HeadIds, key_0: u32, d4: u32) {
  for (var n = 0u; n < TURNED_TRIPS; n++) {
    let block = turned_block(nth(n));
    if (TURNED_EXACT || block.y < CHUNK) {
      let key = key_0 + block.x;
      let part = d4 + block.y;
      store_turned(block, key_vec4(ids, key, part), key_vec4(ids, key + 1u, part),
                   key_vec4(ids, key + 2u, part), key_vec4(ids, key + 3u, part));
    }
  }
}

fn stage_turned_values(ids: HeadIds, key_0: u32, d4: u32) {
  for (var n = 0u; n < TURNED_TRIPS; n++) {
    let block = turned_block(nth(n));
    if (TURNED_EXACT || block.y < CHUNK) {
      let key = key_0 + block.x;
      let part = d4 + block.y;
      store_turned(block, value_vec4(ids, key, part), value_vec4(ids, key + 1u, part),
                   value_vec4(ids, key + 2u, part), value_vec4(ids, key + 3u, part));
    }
  }
}

// One vec4 of `right`. In a partial tile, notes whether it holds a NaN or an infinity.
fn stage_right(row: u32, d4: u32, value: vec4f, partial: bool) {
  right[row * RIGHT_WIDTH + d4] = value;
  if (partial) {
    note_staged(value);
  }
}

fn stage_key_rows(ids: HeadIds, key_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let key = min(key_0 + row, ids.keys - 1u);
      stage_right(row, d4, load_k(key_at(params.k, ids, key), head_column(d4)), partial);
    }
  }
}

fn stage_value_rows(ids: HeadIds, key_0: u32, partial: bool) {
  for (var n = 0u; n < RIGHT_TRIPS; n++) {
    let row = nth(n) / RIGHT_WIDTH;
    let d4 = nth(n) % RIGHT_WIDTH;
    if (RIGHT_EXACT || row < ROW_CHUNK) {
      let key = min(key_0 + row, ids.keys - 1u);
      stage_right(row, d4, load_v(key_at(params.v, ids, key), value_column(d4)), partial);
    }
  }
}

// QKᵀ of the tile at (query_0, key_0), not scaled. Also starts a new count of what note_staged sees.
fn make_scores(scores: ptr<function, Scores>, ids: HeadIds, query_0: u32, key_0: u32) {
  for (var d4 = 0u; d4 < HEAD_VEC4; d4 += CHUNK) {
    workgroupBarrier();
    if (thread == 0u) {
      atomicStore(&right_not_finite, 0u);
    }
    stage_query_rows(ids, query_0, d4);
    stage_turned_keys(ids, key_0, d4);
    workgroupBarrier();
    multiply_scores(scores);
  }
}
