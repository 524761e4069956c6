// At the end of matrix_forward.wgsl, where there are so few rows that registers do not count: by the whole workgroup, makes the
// job again where a row is missing or f16 does not hold an operand. That saves short calls a dispatch.
fn settle(job: Job, notes: vec4u, is_missing: bool) {
  let left = largest_of_all(vec4u(notes.xyz, select(0u, 1u, is_missing)));
  if (left.w != 0u || divides(left)) {
    set_exponents(left);
    watch(job);
  }
}
