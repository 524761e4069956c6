// The same as half_operands.wgsl from the tensors themselves, divided by a power of two where they need it.

fn turned_keys(ids: HeadIds, key_0: u32) -> HeadFetch {
  var fetched: HeadFetch;
  let divide = power_of_two(-operand_exponent(K));
  for (var n = 0u; n < HEAD_TRIPS; n++) {
    let source = key_source(params.k, ids, key_0 + (thread + THREADS * n) / HEAD_VEC8);
    let d4 = 2u * ((thread + THREADS * n) % HEAD_VEC8);
    fetched[n] = halves_of(k_vec4(source, d4) * divide, k_vec4(source, d4 + 1u) * divide);
  }
  return fetched;
}

fn turned_values(ids: HeadIds, key_0: u32) -> ValueFetch {
  var fetched: ValueFetch;
  let divide = power_of_two(-operand_exponent(V));
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    let source = key_source(params.v, ids, key_0 + (thread + THREADS * n) / VALUE_VEC8);
    let d4 = 2u * ((thread + THREADS * n) % VALUE_VEC8);
    fetched[n] = halves_of(v_vec4(source, d4) * divide, v_vec4(source, d4 + 1u) * divide);
  }
  return fetched;
}

fn turned_queries(ids: HeadIds, strip: u32) -> Staged {
  var staged: Staged;
  let divide = power_of_two(-operand_exponent(Q));
  for (var p = 0u; p < PASSES; p++) {
    for (var r = 0u; r < STRIPS; r++) {
      for (var n = 0u; n < STAGED_TRIPS; n++) {
        let source = query_source(params.q, ids, strip + MATRIX_M * r + staged_place(n).x);
        let d4 = 2u * (p * STAGED_VEC8 + staged_place(n).y);
        staged[(p * STRIPS + r) * STAGED_TRIPS + n] = halves_of(q_vec4(source, d4) * divide, q_vec4(source, d4 + 1u) * divide);
      }
    }
  }
  return staged;
}
