// dQ = softmaxScale · dS·K on subgroup matrices; see backward_dq.wgsl. result_0 is dQ, which lies like q.
// `sums` holds QKᵀ of all strips, then dO·Vᵀ.

const D_WEIGHTS_AT = SUBGROUPS * MATRIX_M * SUMS_STRIDE;

// dS of this lane, as f16.
fn write_gradients(
    ids: HeadIds, query: u32, key_0: u32, statistics: vec4f, scale: f32, d_scale: f32, gradient_scale: f32,
    partial: bool) {
  let strip_row = subgroup % SUBGROUPS * MATRIX_M + lane % LANES / LANES_PER_ROW;
  for (var n = 0u; n < ROW_VEC4; n++) {
    let at = strip_row * SUMS_STRIDE + lane % LANES_PER_ROW + LANES_PER_ROW * n;
    let product = bitcast<vec4f>(sums[at]);
    let d_weights = bitcast<vec4f>(sums[D_WEIGHTS_AT + at]);
    let pair = pair_gradients(
        product * scale, d_weights * d_scale, statistics, ids, query, key_0 + 4u * lane_vec4(n), partial);
    weights[strip_row * WEIGHTS_STRIDE + lane % LANES_PER_ROW + LANES_PER_ROW * n] =
        vec4h(pair.scores * gradient_scale);
  }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  if (!is_for_this_kernel()) {
    return;
  }
  start_thread(index);
  let tiles = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * params.heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles, params.heads * params.batches);
  let ids = head_ids(place.head / params.heads, place.head % params.heads);
  let query_0 = (tiles - 1u - place.tile) * BLOCK_QUERIES;
  if (query_0 >= ids.query_rows) {
    return;
  }
  let strip = query_0 + MATRIX_M * subgroup;
  let query = strip + lane_row();
  let statistics = statistics_of(ids, query);
  let scale = product_scale();
  let d_scale = d_weights_scale();
  let gradient_scale = power_of_two(gradient_exponent());

  var queries: array<Left, HEAD_STEPS>;
  var d_outputs: array<Left, VALUE_STEPS>;
  let half_row = half_query_row(ids, strip);
  for (var d = 0u; d < HEAD_STEPS; d++) {
    queries[d] = subgroupMatrixLoad<Left, row_major>(&half_q, half_row * HEAD_VEC8 + d * (MATRIX_K / 8u), HEAD_VEC8);
  }
  for (var d = 0u; d < VALUE_STEPS; d++) {
    d_outputs[d] = subgroupMatrixLoad<Left, row_major>(
        &half_d_output, half_row * VALUE_VEC8 + d * (MATRIX_K / 8u), VALUE_VEC8);
  }
  var accumulator: array<Sums, HEAD_COLUMNS>;
  for (var o = 0u; o < HEAD_COLUMNS; o++) {
    accumulator[o] = Sums();
  }

  let begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  let end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  var key_0 = next_seen(ids, query_0, begin, end);
  var fetched_keys = fetch_keys(ids, min(key_0, ids.keys));
  var fetched_values = fetch_values(ids, min(key_0, ids.keys));
  while (key_0 < end) {
    let next = next_seen(ids, query_0, key_0 + BLOCK_KEYS, end);
    workgroupBarrier();
    store_head_tile(&fetched_keys);
    store_value_tile(&fetched_values);
    workgroupBarrier();
    for (var j = 0u; j < BLOCK_KEYS / MATRIX_N; j++) {
      var products = Sums();
      for (var d = 0u; d < HEAD_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &head_tile, j * MATRIX_N * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[d], keys, products);
      }
      subgroupMatrixStore<row_major>(
          &sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE + j * (MATRIX_N / 4u), products, SUMS_STRIDE);
      var d_weights = Sums();
      for (var d = 0u; d < VALUE_STEPS; d++) {
        let values = subgroupMatrixLoad<Right, col_major>(
            &value_tile, j * MATRIX_N * VALUE_STRIDE + d * (MATRIX_K / 4u), VALUE_STRIDE);
        d_weights = subgroupMatrixMultiplyAccumulate(d_outputs[d], values, d_weights);
      }
      subgroupMatrixStore<row_major>(
          &sums, D_WEIGHTS_AT + subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE + j * (MATRIX_N / 4u), d_weights, SUMS_STRIDE);
    }
    workgroupBarrier();

    if (is_partial(ids, query_0, key_0)) {
      write_gradients(ids, query, key_0, statistics, scale, d_scale, gradient_scale, true);
    } else {
      write_gradients(ids, query, key_0, statistics, scale, d_scale, gradient_scale, false);
    }
    workgroupBarrier();

    for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
      let left = subgroupMatrixLoad<Left, row_major>(
          &weights, subgroup % SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u), WEIGHTS_STRIDE);
      for (var o = 0u; o < HEAD_COLUMNS; o++) {
        let keys = subgroupMatrixLoad<Right, row_major>(
            &head_tile, j * MATRIX_K * HEAD_STRIDE + o * (MATRIX_N / 4u), HEAD_STRIDE);
        accumulator[o] = subgroupMatrixMultiplyAccumulate(left, keys, accumulator[o]);
      }
    }
    key_0 = next;
    fetched_keys = fetch_keys(ids, min(key_0, ids.keys));
    fetched_values = fetch_values(ids, min(key_0, ids.keys));
  }

  let unscale = params.scale * power_of_two(half_exponent(largest[K])) * power_of_two(-gradient_exponent());
  let at = query_at(params.q, ids, query);
  let empty = is_empty_row(statistics);
  for (var o = 0u; o < HEAD_COLUMNS; o++) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE, accumulator[o], SUMS_STRIDE);
    workgroupBarrier();
    for (var n = 0u; n < COLUMN_VEC4; n++) {
      let d4 = o * (MATRIX_N / 4u) + lane_vec4(n);
      if (query < ids.query_rows && d4 < HEAD_VEC4) {
        store_result_0(at, d4, HEAD_SIZE, select(sums_vec4(sums_at() + lane_vec4(n)) * unscale, vec4f(), empty));
      }
    }
  }
}
