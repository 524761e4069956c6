// A call that may run by subgroup matrices is recorded twice; which of the two does it is known on the GPU only.

@group(0) @binding(16) var<storage, read> largest: array<u32>; // half.wgsl

// Whether all that this call reads is finite.
fn is_finite_call() -> bool {
  return largest[5] < 0x7f800000u; // ALL in half.wgsl
}

fn is_for_this_kernel() -> bool {
  return is_finite_call() == MATRIX;
}
