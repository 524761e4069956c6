// Score gradients on their way through f16: how they are scaled so that none is lost or too large.

// |dO·Vᵀ| ≤ Dv · max|dO| · max|V|, times the dropout factor, and so is a row's mean of them; to that comes dLSE. dS is
// multiplied by this power of two: then the largest that it could be just fits, and 29 binades below it keep full precision.
fn gradient_exponent() -> i32 {
  let pairs = exponent_above(bitcast<u32>(2.0 * f32(VALUE_SIZE) * params.kept_scale)) +
      exponent_above(largest[D_OUTPUT]) + exponent_above(largest[V]);
  return clamp(14 - max(pairs, exponent_above(largest[D_LSE])), -100, 100);
}

// What dO and v were divided by.
fn d_weights_scale() -> f32 {
  return power_of_two(operand_exponent(D_OUTPUT)) * power_of_two(operand_exponent(V));
}
