// A thread's share of tiles of K and V, and a lane's of the queries of its strips, from the copies in f16 (half.wgsl).

fn fetch_keys(ids: HeadIds, key_0: u32) -> HeadFetch {
  var fetched: HeadFetch;
  let first = half_key_row(ids, key_0) * HEAD_VEC8 + thread;
  for (var n = 0u; n < HEAD_TRIPS; n++) {
    fetched[n] = half_k[first + THREADS * n];
  }
  return fetched;
}

fn fetch_values(ids: HeadIds, key_0: u32) -> ValueFetch {
  var fetched: ValueFetch;
  let first = half_key_row(ids, key_0) * VALUE_VEC8 + thread;
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    fetched[n] = half_v[first + THREADS * n];
  }
  return fetched;
}

// Of the subgroup's strips from query `strip` on.
fn fetch_queries(ids: HeadIds, strip: u32) -> Staged {
  var staged: Staged;
  for (var p = 0u; p < PASSES; p++) {
    for (var r = 0u; r < STRIPS; r++) {
      let first = half_query_row(ids, strip + MATRIX_M * r) * HEAD_VEC8 + p * STAGED_VEC8;
      for (var n = 0u; n < STAGED_TRIPS; n++) {
        staged[(p * STRIPS + r) * STAGED_TRIPS + n] = half_q[first + staged_place(n).x * HEAD_VEC8 + staged_place(n).y];
      }
    }
  }
  return staged;
}
