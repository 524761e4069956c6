// The power of two that q, k, v or dO was divided by (half.wgsl).
fn operand_exponent(tensor: u32) -> i32 {
  return half_exponent(largest[tensor]);
}
