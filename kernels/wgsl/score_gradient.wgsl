// What dQ and dK, dV share: the weights P and the score gradients dS of one tile, made again from q, k, the saved LSE
// and dO. With D = rowsum(dO∘O) − dLSE: P = exp(S − LSE), dS = P∘(keep∘dO·Vᵀ − D)  (Dao, 2023, algorithm 2).

// [B,Hq,Nq] of (LSE, tail of LSE, D, 0). Rows whose LSE is −∞ have LARGEST here, so that P = 0.
@group(0) @binding(9) var<storage, read> row_statistics: array<vec4f>;

fn d_output_vec4(ids: HeadIds, query: u32, d4: u32) -> vec4f {
  if (VALUE_VEC4 % CHUNK != 0u && d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_d_output(query_at(params.output, ids, min(query, ids.query_rows - 1u)), d4);
}

fn statistics_of(ids: HeadIds, query: u32) -> vec4f {
  if (query >= ids.queries) {
    return vec4f(LARGEST, 0.0, 0.0, 0.0);
  }
  return row_statistics[query_at(params.statistics, ids, query)];
}

// A row that sees no key, or only scores of −∞: it has no part in any gradient, whatever NaN and infinities it holds.
fn is_empty_row(statistics: vec4f) -> bool {
  return statistics.x == LARGEST;
}

// scores, given as QKᵀ, becomes P (with the dropout factors); d_weights, given as dO·Vᵀ, becomes dS: the gradient of the
// scores for the bias, and otherwise with softcap's slope, so that softmaxScale is all that is missing.
fn softmax_gradient(
    scores: ptr<function, Scores>, d_weights: ptr<function, Scores>, ids: HeadIds, query_0: u32, key_0: u32,
    partial: bool) {
  for (var i = 0u; i < ROWS; i++) {
    let query = query_0 + query_row(i);
    let statistics = statistics_of(ids, query);
    let factors = factors_of(ids, query, key_0 + 4u * tx);
    let capped = cap((*scores)[i] * params.scale);
    let score = with_additions(capped, ids, query, key_0 + 4u * tx);
    var weights = exp_or_nan(score - statistics.x - statistics.y);
    var gradient = weights * ((*d_weights)[i] * factors - statistics.z);
    if (SOFTCAP && !OF_BIAS) {
      gradient *= cap_slope(capped);
    }
    gradient = select(gradient, vec4f(), is_empty_row(statistics));
    if (partial) {
      for (var c = 0u; c < 4u; c++) {
        if (!sees(ids, query, key_0 + 4u * tx + c)) {
          weights[c] = 0.0;
          gradient[c] = 0.0;
        }
      }
    }
    (*scores)[i] = weights * factors;
    (*d_weights)[i] = gradient;
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
