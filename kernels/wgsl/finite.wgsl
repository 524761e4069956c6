// A call that may run by subgroup matrices is recorded twice; which of the two does it is known on the GPU only.

@group(0) @binding(16) var<storage, read> largest: array<u32>; // of q, k, v, dO, dLSE, as bits

// Whether all that this call reads is finite.
fn is_finite_call() -> bool {
  var most = 0u;
  for (var tensor = 0u; tensor < 5u; tensor++) {
    most = max(most, largest[tensor]);
  }
  return most < 0x7f800000u;
}

fn is_for_this_kernel() -> bool {
  return is_finite_call() == MATRIX;
}
