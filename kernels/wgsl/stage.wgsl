// Rows of q, k and v on their way into workgroup memory, and the scores made of them.

// Four neighbours of a row: zeros past the end of the window or of the row.

fn query_vec4(ids: HeadIds, query: u32, d4: u32) -> vec4f {
  if (query >= params.queries || d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_q(view_at(params.q, ids.batch, query, ids.head), d4);
}

fn key_vec4(ids: HeadIds, key: u32, d4: u32) -> vec4f {
  if (key >= params.keys || d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_k(view_at(params.k, ids.batch, key, ids.key_head), d4);
}

fn value_vec4(ids: HeadIds, key: u32, d4: u32) -> vec4f {
  if (key >= params.keys || d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_v(view_at(params.v, ids.batch, key, ids.key_head), d4);
}

fn stage_query_rows(ids: HeadIds, query_0: u32, d4: u32) {
  for (var n = thread; n < BLOCK_QUERIES * HEAD_CHUNK; n += THREADS) {
    let place = tile_place(n, HEAD_CHUNK);
    left[place.x * LEFT_STRIDE + place.y] = query_vec4(ids, query_0 + place.x, d4 + place.y);
  }
}

fn stage_turned_keys(ids: HeadIds, key_0: u32, d4: u32) {
  for (var n = thread; n < turned_blocks(HEAD_CHUNK); n += THREADS) {
    let block = turned_block(n);
    if (block.y < HEAD_CHUNK) {
      let key = key_0 + block.x;
      let from_d4 = d4 + block.y;
      store_turned(block, key_vec4(ids, key, from_d4), key_vec4(ids, key + 1u, from_d4),
                   key_vec4(ids, key + 2u, from_d4), key_vec4(ids, key + 3u, from_d4));
    }
  }
}

fn stage_turned_values(ids: HeadIds, key_0: u32, d4: u32) {
  for (var n = thread; n < turned_blocks(VALUE_CHUNK); n += THREADS) {
    let block = turned_block(n);
    if (block.y < VALUE_CHUNK) {
      let key = key_0 + block.x;
      let from_d4 = d4 + block.y;
      store_turned(block, value_vec4(ids, key, from_d4), value_vec4(ids, key + 1u, from_d4),
                   value_vec4(ids, key + 2u, from_d4), value_vec4(ids, key + 3u, from_d4));
    }
  }
}

// One row of `right` from a row of a tensor. In a partial tile, says whether it holds a NaN or an infinity.
fn stage_right(place: vec2u, value: vec4f, partial: bool) {
  right[place.x * RIGHT_WIDTH + place.y] = value;
  if (partial) {
    note_staged(value);
  }
}

// QKᵀ of the tile at (query_0, key_0), not scaled. Also starts a new count of what note_staged sees.
fn make_scores(scores: ptr<function, Scores>, ids: HeadIds, query_0: u32, key_0: u32) {
  for (var d4 = 0u; d4 < HEAD_VEC4; d4 += HEAD_CHUNK) {
    workgroupBarrier();
    if (thread == 0u) {
      atomicStore(&right_not_finite, 0u);
    }
    stage_query_rows(ids, query_0, d4);
    stage_turned_keys(ids, key_0, d4);
    workgroupBarrier();
    multiply_scores(scores, HEAD_CHUNK);
  }
}
