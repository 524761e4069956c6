// From scaled products to the scores that the softmax takes: softcap, then ALiBi, then the bias.

// tanh to a few units in the last place. WGSL's own may be off by 1e-5, and 1 − e near 0 has no digits left: there the
// odd polynomial of Cephes' tanhf (S. Moshier) takes over.
fn accurate_tanh(x: vec4f) -> vec4f {
  let size = abs(x);
  let decay = exp(-2.0 * size);
  let far = sign(x) * (1.0 - decay) / (1.0 + decay);
  let z = x * x;
  var series = fma(vec4f(-5.70498872745e-3), z, vec4f(2.06390887954e-2));
  series = fma(series, z, vec4f(-5.37397155531e-2));
  series = fma(series, z, vec4f(1.33314422036e-1));
  series = fma(series, z, vec4f(-3.33332819422e-1));
  let near = fma(series * z, x, x);
  return select(far, near, size < vec4f(0.625));
}

// Products of f16 hold fewer digits than 1 − 2/(e^2x + 1) loses near 0.
const CAPS_ROUGHLY = MATRIX && !SPLIT_OPERANDS && !AGAIN;

fn rough_cap(product: vec4f) -> vec4f {
  let grown = exp2(min(product * (2.0 * 1.4426950408889634 / params.softcap), vec4f(64.0))); // e^2x, if not too large
  return params.softcap - 2.0 * params.softcap / (grown + 1.0);
}

// softcap·tanh(product/softcap); NaN stays NaN.
fn cap(product: vec4f) -> vec4f {
  if (!SOFTCAP) {
    return product;
  }
  let is_nan = (bitcast<vec4u>(product) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
  if (CAPS_ROUGHLY) {
    return select(rough_cap(product), product, is_nan);
  }
  return select(params.softcap * accurate_tanh(product / params.softcap), product, is_nan);
}

// ∂cap/∂product, from what cap gave.
fn cap_slope(capped: vec4f) -> vec4f {
  let share = capped / params.softcap;
  return 1.0 - share * share;
}

// What is added to the scores of a query and of the four keys from `key` on, a multiple of 4.
fn with_additions(capped: vec4f, ids: HeadIds, query: u32, key: u32) -> vec4f {
  var score = capped;
  if (ALIBI) {
    let slope = bitcast<f32>(table_word(
        params.slopes_at + ids.batch * params.slopes_batch + params.head_first + ids.head));
    let first = distance(ids, query, key);
    score -= slope * vec4f(abs(vec4i(first) + vec4i(0, 1, 2, 3)));
  }
  if (BIAS) {
    score += bias_of_four(ids, query, key);
  }
  return score;
}
