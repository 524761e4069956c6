// P and dS of one tile (pair_gradients.wgsl) for the kernels that multiply in registers.

fn d_output_vec4(ids: HeadIds, query: u32, d4: u32) -> vec4f {
  if (VALUE_VEC4 % CHUNK != 0u && d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_d_output(query_at(params.output, ids, min(query, ids.query_rows - 1u)), d4);
}

// scores, given as QKᵀ, becomes P with the dropout factors; d_weights, given as dO·Vᵀ, becomes dS.
fn softmax_gradient(
    scores: ptr<function, Scores>, d_weights: ptr<function, Scores>, ids: HeadIds, query_0: u32, key_0: u32,
    partial: bool) {
  for (var i = 0u; i < ROWS; i++) {
    let query = query_0 + query_row(i);
    let pair = pair_gradients(
        scaled((*scores)[i]), (*d_weights)[i], statistics_of(ids, query), ids, query, key_0 + 4u * tx, partial);
    (*scores)[i] = pair.weights * pair.factors;
    (*d_weights)[i] = pair.scores;
  }
}

fn stage_d_output_rows(ids: HeadIds, query_0: u32, d4: u32) {
  for (var n = 0u; n < LEFT_TRIPS; n++) {
    let row = nth(n) / CHUNK;
    let part = nth(n) % CHUNK;
    if (LEFT_EXACT || row < BLOCK_QUERIES) {
      left[row * LEFT_STRIDE + part] = d_output_vec4(ids, query_0 + row, d4 + part);
    }
  }
}

// dO·Vᵀ of the tile at (query_0, key_0).
fn make_d_weights(d_weights: ptr<function, Scores>, ids: HeadIds, query_0: u32, key_0: u32) {
  for (var d4 = 0u; d4 < VALUE_VEC4; d4 += CHUNK) {
    workgroupBarrier();
    stage_d_output_rows(ids, query_0, d4);
    stage_turned_values(ids, key_0, d4);
    workgroupBarrier();
    multiply_scores(d_weights);
  }
}
