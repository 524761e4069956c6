// What dQ, dK, dV and dBias share: the weights P and the score gradients dS of a query and four keys, made again from
// q, k, the saved LSE and dO. With D = rowsum(dO∘O) − dLSE: P = exp(S − LSE), dS = P∘(keep∘dO·Vᵀ − D)  (Dao, 2023, algorithm 2).

// [B,Hq,Nq] of (LSE, exp(−its tail), D, 0). Rows whose LSE is −∞ have LARGEST here, so that P = 0.
@group(0) @binding(9) var<storage, read> row_statistics: array<vec4f>;

fn statistics_of(ids: HeadIds, query: u32) -> vec4f {
  if (query >= ids.queries) {
    return vec4f(LARGEST, 1.0, 0.0, 0.0);
  }
  return row_statistics[query_at(params.statistics, ids, query)];
}

// A row that sees no key, or only scores of −∞: it has no part in any gradient, whatever NaN and infinities it holds.
fn is_empty_row(statistics: vec4f) -> bool {
  return statistics.x == LARGEST;
}

struct PairGradients {
  weights: vec4f, // P
  factors: vec4f, // of dropout
  scores: vec4f,  // dS
}

// From QKᵀ (times softmaxScale) and dO·Vᵀ of a query and the four keys from `key` on. dS is the gradient of the scores
// for the bias, and otherwise with softcap's slope, so that softmaxScale is all that is missing.
fn pair_gradients(
    product: vec4f, d_weights: vec4f, statistics: vec4f, ids: HeadIds, query: u32, key: u32,
    partial: bool) -> PairGradients {
  let factors = factors_of(ids, query, key);
  let capped = cap(product);
  let score = with_additions(capped, ids, query, key);
  var weights = exp_or_nan(score - statistics.x) * statistics.y;
  var gradient = weights * (d_weights * factors - statistics.z);
  if (SOFTCAP && !OF_BIAS) {
    gradient *= cap_slope(capped);
  }
  gradient = select(gradient, vec4f(), is_empty_row(statistics));
  if (partial) {
    let seen = sees_four(ids, query, key);
    weights = select(vec4f(), weights, seen);
    gradient = select(vec4f(), gradient, seen);
  }
  return PairGradients(weights, factors, gradient);
}
