// Forward pass on subgroup matrices: forward.wgsl's results from f16 operands and f32 sums.
//
// The running maximum of a row is not followed at each tile: weights are exp2(score − row_max) with whatever row_max was
// last, until a lane's sum of them nears what f16 holds. Only then, which after the first tile is rare, the workgroup takes
// new maxima and rescales. row_max is in units of log 2. The look at every tile costs a barrier, 4% of the time; to look only
// where first maxima come, and to begin again where that was not enough, doubled it for a key that outweighs the first tile
// by e^10.4 (H100, NOTES.md).
//
// Indices into workgroup memory are bounded by `%` where the loop over the keys reads and writes scores and weights, so
// that Dawn needs no clamp of its own, a tenth of the time; where the results leave they are not: there NVIDIA's compiler
// (580.159) takes what a lane has read for what it reads after a subgroup matrix was stored over it, once it knows the
// address exactly (NOTES.md).

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
  if (item >= tiles * params.heads * params.batches * params.splits) {
    return;
  }
  let place = place_of(item, tiles, params.heads * params.batches * params.splits);
  let split = place.head / params.heads / params.batches;
  let ids = head_ids(place.head / params.heads % params.batches, place.head % params.heads);
  let query_0 = (tiles - 1u - place.tile) * BLOCK_QUERIES;
  if (query_0 >= ids.query_rows) {
    return;
  }
  let strip = query_0 + MATRIX_M * subgroup;
  let query = strip + lane_row();
  let scale = product_scale();

  var queries: array<Left, HEAD_STEPS>;
  let query_at_0 = half_query_row(ids, strip) * HEAD_VEC8;
  for (var d = 0u; d < HEAD_STEPS; d++) {
    queries[d] = subgroupMatrixLoad<Left, row_major>(&half_q, query_at_0 + d * (MATRIX_K / 8u), HEAD_VEC8);
  }
  var accumulator: array<Sums, VALUE_COLUMNS>;
  var row_max: f32;
  var row_sum: f32;

  var begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  var end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  if (SPLIT) {
    begin = max(begin, split * params.split_keys);
    end = min(end, (split + 1u) * params.split_keys);
  }
  if (SPLIT && split > 0u && begin >= end) {
    store_nothing_seen(ids, query, split);
    return;
  }
  for (var o = 0u; o < VALUE_COLUMNS; o++) {
    accumulator[o] = Sums();
  }
  row_max = NO_MAXIMUM;
  row_sum = 0.0;
  if (SINKS && split == 0u) {
    let sink = bitcast<f32>(table_word(params.sinks_at + params.head_first + ids.head));
    if (!is_minus_infinity(sink)) {
      let broken = any_not_finite(vec4f(sink));
      row_max = select(sink * LOG2_E, NO_MAXIMUM, broken);
      row_sum = select(0.0, select(1.0, not_a_number(), broken), lane % LANES_PER_ROW == 0u);
    }
  }
  var key_0 = next_seen(ids, query_0, begin, end);
  var fetched_keys = fetch_keys(ids, min(key_0, ids.keys));
  store_head_tile(&fetched_keys);
  if (thread == 0u) {
    too_large = 0u;
  }
  var fresh = true; // nothing has been accumulated yet
  workgroupBarrier();
  while (key_0 < end) {
    let next = next_seen(ids, query_0, key_0 + BLOCK_KEYS, end);
    let partial = is_partial(ids, query_0, key_0);
    for (var j = 0u; j < BLOCK_KEYS / MATRIX_N; j++) {
      var products = Sums();
      for (var d = 0u; d < HEAD_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &head_tile, j * MATRIX_N * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[d], keys, products);
      }
      subgroupMatrixStore<row_major>(
          &sums, subgroup * MATRIX_M * SUMS_STRIDE + j * (MATRIX_N / 4u), products, SUMS_STRIDE);
    }
    workgroupBarrier();

    var fetched_values = fetch_values(ids, key_0);
    fetched_keys = fetch_keys(ids, select(key_0, next, next < end));
    var scores = scores_of(ids, query, key_0, scale, partial);
    var total = write_weights(&scores, row_max, ids, query, key_0);
    if (!(total <= LARGEST_SUM)) {
      too_large = 1u;
    }
    store_value_tile(&fetched_values);
    store_head_tile(&fetched_keys);

    if (workgroupUniformLoad(&too_large) != 0u) {
      if (thread == 0u) {
        too_large = 0u;
      }
      scores = scores_of(ids, query, key_0, scale, partial);
      var largest_score = row_max;
      for (var n = 0u; n < ROW_VEC4; n++) {
        let pair = max(scores[n].xy, scores[n].zw);
        largest_score = max(largest_score, max(pair.x, pair.y));
      }
      largest_score = row_maximum(largest_score);
      let rescale = exp2(row_max - largest_score);
      row_max = largest_score;
      row_sum *= rescale;
      total = write_weights(&scores, row_max, ids, query, key_0);
      if (!fresh) {
        for (var o = 0u; o < VALUE_COLUMNS; o++) {
          workgroupBarrier();
          subgroupMatrixStore<row_major>(&sums, subgroup * MATRIX_M * SUMS_STRIDE, accumulator[o], SUMS_STRIDE);
          workgroupBarrier();
          for (var n = 0u; n < COLUMN_VEC4; n++) {
            let at = sums_at() + lane_vec4(n);
            sums[at] = bitcast<vec4u>(sums_vec4(at) * rescale);
          }
          workgroupBarrier();
          accumulator[o] = subgroupMatrixLoad<Sums, row_major>(&sums, subgroup * MATRIX_M * SUMS_STRIDE, SUMS_STRIDE);
        }
      }
      workgroupBarrier();
    }
    row_sum += total;
    fresh = false;

    for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
      let left = subgroupMatrixLoad<Left, row_major>(
          &weights, subgroup * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u), WEIGHTS_STRIDE);
      for (var o = 0u; o < VALUE_COLUMNS; o++) {
        let values = subgroupMatrixLoad<Right, row_major>(
            &value_tile, j * MATRIX_K * VALUE_STRIDE + o * (MATRIX_N / 4u), VALUE_STRIDE);
        accumulator[o] = subgroupMatrixMultiplyAccumulate(left, values, accumulator[o]);
      }
    }
    key_0 = next;
  }

  row_sum = row_total(row_sum);
  let empty = row_sum == 0.0;
  var normalise = power_of_two(half_exponent(largest[V])) / row_sum;
  if (DROPOUT) {
    normalise *= params.kept_scale;
  }
  let at = query_at(params.output, ids, query) + split * params.split_output;
  for (var o = 0u; o < VALUE_COLUMNS; o++) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&sums, subgroup * MATRIX_M * SUMS_STRIDE, accumulator[o], SUMS_STRIDE);
    workgroupBarrier();
    for (var n = 0u; n < COLUMN_VEC4; n++) {
      let d4 = o * (MATRIX_N / 4u) + lane_vec4(n);
      if (query < ids.query_rows && d4 < VALUE_VEC4 && !(SPLIT && empty)) { // merging passes over parts that saw nothing
        let value = select(sums_vec4(sums_at() + lane_vec4(n)) * normalise, vec4f(), empty);
        store_result_0(at, d4, VALUE_SIZE, value);
      }
    }
  }
  if (query < ids.query_rows && lane % LANES_PER_ROW == 0u) {
    // As in forward.wgsl: a float and the exact rest. The product with ln 2 has a rest of its own.
    let largest_score = row_max * LN_2;
    let product_rest = fma(row_max, LN_2, -largest_score);
    let log_sum = log_or_nan(row_sum);
    let sum = largest_score + log_sum;
    let log_part = sum - largest_score;
    let tail = (largest_score - (sum - log_part)) + (log_sum - log_part) + product_rest;
    let row = query_at(params.rows, ids, query) + split * params.split_rows;
    lse[row] = select(sum, negative_infinity(), empty);
    lse_tail[row] = select(tail, 0.0, empty);
  }
}
