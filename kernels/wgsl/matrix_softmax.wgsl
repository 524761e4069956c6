// The softmax of kernels over subgroup matrices whose strips are queries: scores out of `sums`, weights into `weights`.
//
// Scores and row_max are in units of log 2; with split operands in those of the logarithm itself, because a factor of
// log2(e) would be rounded into each score.

@group(0) @binding(9) var<storage, read_write> lse: array<f32>;       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read_write> lse_tail: array<f32>; // the same: what rounding took from the LSE

const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
const LARGEST_SUM = 32768.0;
const UNITS = select(LOG2_E, 1.0, SPLIT_OPERANDS);

// Before a row has seen a key. Far above HIDDEN, so that the weight of what is not seen is 0 from the start; a first
// key that is seen gives ∞, and with it a maximum.
const NO_MAXIMUM = select(-3.3e38f, -1.9e38f, SPLIT_OPERANDS);
const HIDDEN = select(NOT_SEEN, -2.0e38f, SPLIT_OPERANDS); // times log2(e) still finite

alias Scores = array<vec4f, ROW_VEC4>;

// A score from a product of q and k. HIDDEN where the query does not see the key.
fn score_of(product: vec4f, ids: HeadIds, query: u32, key: u32, scale: f32, partial: bool) -> vec4f {
  var score: vec4f;
  if (SOFTCAP || ALIBI || BIAS) {
    score = with_additions(cap(product * scale), ids, query, key) * UNITS;
  } else {
    score = product * (scale * UNITS);
  }
  if (partial) {
    score = select(vec4f(HIDDEN), score, sees_four(ids, query, key));
  }
  return score;
}

// This lane's products of q and k in strip r, from `sums`.
fn products_of(r: u32) -> Scores {
  var products: Scores;
  // Not by functions: through their results Dawn does not see that an index stays inside.
  let row = (subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * STRIP_SUMS +
      (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW * SUMS_STRIDE +
      lane % LANES_PER_ROW / LANES_PER_AREA * AREA_VEC4;
  for (var n = 0u; n < ROW_VEC4; n++) {
    products[n] = bitcast<vec4f>(sums[row + lane % LANES_PER_AREA + LANES_PER_AREA * n]);
  }
  return products;
}

// Scores of this lane in strip r.
fn scores_of(ids: HeadIds, query: u32, key_0: u32, scale: f32, partial: bool, r: u32) -> Scores {
  var scores = products_of(r);
  for (var n = 0u; n < ROW_VEC4; n++) {
    scores[n] = score_of(scores[n], ids, query, key_0 + lane_key(n), scale, false);
  }
  if (partial) {
    for (var n = 0u; n < ROW_VEC4; n++) {
      scores[n] = select(vec4f(HIDDEN), scores[n], sees_four(ids, query, key_0 + lane_key(n)));
    }
  }
  return scores;
}

// e^difference, or 2^difference: whatever units the scores are in.
fn exp_of_units(difference: vec4f) -> vec4f {
  if (SPLIT_OPERANDS) {
    return exp2(difference * LOG2_E);
  }
  return exp2(difference);
}

// The weights of scores.
fn weights_of(scores: ptr<function, Scores>, row_max: f32) -> Scores {
  var weights: Scores;
  for (var n = 0u; n < ROW_VEC4; n++) {
    weights[n] = exp_of_units((*scores)[n] - row_max);
  }
  return weights;
}

// Writes the weights of this lane in strip r, with split operands also what f16 takes from them, and gives their sum.
fn write_weights(row_weights: ptr<function, Scores>, ids: HeadIds, query: u32, key_0: u32, r: u32) -> f32 {
  var total = vec4f();
  let row = ((subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * MATRIX_M +
             (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW) * WEIGHTS_STRIDE +
      lane % LANES_PER_ROW / LANES_PER_AREA * (BLOCK_ROWS / STRIP_SUBGROUPS / 4u);
  for (var n = 0u; n < ROW_VEC4; n++) {
    var weight = (*row_weights)[n];
    total += weight;
    if (DROPOUT) {
      weight = select(vec4f(), weight, factors_of(ids, query, key_0 + lane_key(n)) > vec4f());
    }
    let half_weight = vec4h(weight);
    weights[row + lane % LANES_PER_AREA + LANES_PER_AREA * n] = half_weight;
    if (SPLIT_OPERANDS) {
      // As in to_half: not to be taken for the weight itself.
      let kept = bitcast<vec4h>(bitcast<vec2u>(half_weight) ^ vec2u(params.splits >> 31u));
      weights[row + BLOCK_ROWS / 4u + lane % LANES_PER_AREA + LANES_PER_AREA * n] = vec4h(weight - vec4f(kept));
    }
  }
  return (total.x + total.y) + (total.z + total.w);
}

fn row_maximum(mine: f32) -> f32 {
  var largest = mine;
  for (var mask = 1u; mask < LANES_PER_ROW; mask *= 2u) {
    largest = max(largest, subgroupShuffleXor(largest, mask));
  }
  return largest;
}

fn row_total(mine: f32) -> f32 {
  var total = mine;
  for (var mask = 1u; mask < LANES_PER_ROW; mask *= 2u) {
    total += subgroupShuffleXor(total, mask);
  }
  return total;
}

// The part of the keys holds none that this query sees.
fn store_nothing_seen(ids: HeadIds, query: u32, split: u32) {
  if (query < ids.query_rows && lane % LANES_PER_ROW == 0u) {
    let row = query_at(params.rows, ids, query) + split * params.split_rows;
    lse[row] = negative_infinity();
    lse_tail[row] = 0.0;
  }
}
