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
    score = with_additions(cap(scaled_by(product, scale)), ids, query, key) * UNITS;
  } else if (SPLIT_OPERANDS) {
    score = scaled_by(product, scale);
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

// Puts them back.
fn put_products(products: ptr<function, Scores>, r: u32) {
  let row = (subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * STRIP_SUMS +
      (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW * SUMS_STRIDE +
      lane % LANES_PER_ROW / LANES_PER_AREA * AREA_VEC4;
  for (var n = 0u; n < ROW_VEC4; n++) {
    sums[row + lane % LANES_PER_AREA + LANES_PER_AREA * n] = bitcast<vec4u>((*products)[n]);
  }
}

// Multiplies the weights that this lane has written.
fn scale_weights(factor: f32, r: u32) {
  let row = ((subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * MATRIX_M +
             (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW) * WEIGHTS_STRIDE +
      lane % LANES_PER_ROW / LANES_PER_AREA * (BLOCK_ROWS / STRIP_SUBGROUPS / 4u);
  for (var n = 0u; n < ROW_VEC4; n++) {
    let at = row + lane % LANES_PER_AREA + LANES_PER_AREA * n;
    weights[at] = vec4h(vec4f(weights[at]) * factor);
  }
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

const WEIGHT_BITS = 6.0; // of split operands

// e^difference times 2^WEIGHT_BITS, or 2^difference: whatever units the scores are in.
fn exp_of_units(difference: vec4f) -> vec4f {
  if (SPLIT_OPERANDS) {
    return exp2(difference * LOG2_E) * exp2(WEIGHT_BITS);
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

alias HalfScores = array<vec4h, ROW_VEC4>;

fn sum_of(row_weights: ptr<function, Scores>) -> f32 {
  var total = vec4f();
  for (var n = 0u; n < ROW_VEC4; n++) {
    total += (*row_weights)[n];
  }
  return (total.x + total.y) + (total.z + total.w);
}

// Weights that are dropped become 0.
fn drop_weights(row_weights: ptr<function, Scores>, ids: HeadIds, query: u32, key_0: u32) {
  if (DROPOUT) {
    for (var n = 0u; n < ROW_VEC4; n++) {
      let factors = factors_of(ids, query, key_0 + lane_key(n));
      (*row_weights)[n] = select(vec4f(), (*row_weights)[n], factors > vec4f());
    }
  }
}

fn halves_of_weights(row_weights: ptr<function, Scores>) -> HalfScores {
  var halves: HalfScores;
  for (var n = 0u; n < ROW_VEC4; n++) {
    halves[n] = vec4h((*row_weights)[n]);
  }
  return halves;
}

// `first`: where they go in a row, in vec4s.
fn store_weights(halves: ptr<function, HalfScores>, first: u32, r: u32) {
  let row = ((subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * MATRIX_M +
             (subgroup % STRIP_SUBGROUPS * LANES + lane % LANES) / LANES_PER_ROW) * WEIGHTS_STRIDE +
      lane % LANES_PER_ROW / LANES_PER_AREA * (BLOCK_ROWS / STRIP_SUBGROUPS / 4u);
  for (var n = 0u; n < ROW_VEC4; n++) {
    weights[row + first + lane % LANES_PER_AREA + LANES_PER_AREA * n] = (*halves)[n];
  }
}

// Writes the weights of this lane in strip r, with split operands also what f16 takes from them, and gives their sum.
fn write_weights(row_weights: ptr<function, Scores>, ids: HeadIds, query: u32, key_0: u32, r: u32) -> f32 {
  let total = sum_of(row_weights);
  drop_weights(row_weights, ids, query, key_0);
  var halves = halves_of_weights(row_weights);
  store_weights(&halves, 0u, r);
  if (SPLIT_OPERANDS) {
    var rests: HalfScores;
    for (var n = 0u; n < ROW_VEC4; n++) {
      rests[n] = rests_of((*row_weights)[n], halves[n], 1.0);
    }
    store_weights(&rests, BLOCK_ROWS / 4u, r);
  }
  return total;
}

fn row_maximum(mine: f32) -> f32 {
  var largest = mine;
  for (var n = 0u; n < ROW_ROUNDS; n++) {
    largest = max(largest, subgroupShuffleXor(largest, 1u << n));
  }
  return largest;
}

fn row_total(mine: f32) -> f32 {
  var total = mine;
  for (var n = 0u; n < ROW_ROUNDS; n++) {
    total += subgroupShuffleXor(total, 1u << n);
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
