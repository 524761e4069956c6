// Forward pass on subgroup matrices in float32: every operand is the sum of two f16 (half.wgsl), and every product three:
// whole · whole, whole · rest and rest · whole. Of forward.wgsl's results what the fourth would add is lost, 2^-22.
//
// NVIDIA's tensor cores truncate: each product that is added to an accumulator takes up to 2^-23 of what is there, always
// toward zero. So scores begin with the small products, and the sums over the keys go into registers of the lanes, by
// additions that round, every FLUSH_TILES tiles.
//
// Maxima are followed as in matrix_forward, but every tile is watched. A row's largest weight is 2^WEIGHT_BITS when a maximum
// is taken: below it there is room for the rests of weights, which f16 holds to 2^-24, and above it for scores that grow by
// 6.2, which one key that suits a query is enough for. It is the weight that is multiplied, not the score: the LSE of a row
// that sees one key is then its score, to the last bit, as the backward kernels want it.

var<workgroup> too_large: vec4u; // x

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
  let strip = query_0 + MATRIX_M * strip_place();
  let part = subgroup % STRIP_SUBGROUPS;
  let strip_at = subgroup % SUBGROUPS / STRIP_SUBGROUPS;
  let own_sums = strip_at * STRIP_SUMS + subgroup % STRIP_SUBGROUPS * AREA_VEC4; // where its area begins
  let query = strip + lane_row();
  let scale = product_scale();

  var queries: array<Left, HEAD_STEPS>;
  var query_rests: array<Left, HEAD_STEPS>;
  let query_at_0 = half_query_row(ids, strip) * HEAD_VEC8;
  for (var d = 0u; d < HEAD_STEPS; d++) {
    queries[d] = subgroupMatrixLoad<Left, row_major>(&half_q, query_at_0 + d * (MATRIX_K / 8u), HEAD_VEC8);
    query_rests[d] = subgroupMatrixLoad<Left, row_major>(
        &half_q, query_at_0 + HEAD_REST + d * (MATRIX_K / 8u), HEAD_VEC8);
  }
  var accumulator: array<Sums, PART_COLUMNS>;
  var output: array<vec4f, OUTPUT_VEC4>; // this lane's share of the strip
  var row_max: f32;
  var row_sum: f32;

  var begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  var end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  if (SPLIT) {
    begin = max(begin, split * params.split_keys);
    end = min(end, (split + 1u) * params.split_keys);
  }
  for (var o = 0u; o < PART_COLUMNS; o++) {
    accumulator[o] = Sums();
  }
  for (var n = 0u; n < OUTPUT_VEC4; n++) {
    output[n] = vec4f();
  }
  var unflushed = 0u;
  row_max = NO_MAXIMUM;
  row_sum = 0.0;
  var tile = next_seen(ids, query_0, begin, end);
  var fetched_keys = fetch_keys(ids, min(tile.begin, ids.keys));
  store_head_tile(&fetched_keys);
  if (thread == 0u) {
    too_large.x = 0u;
  }
  var fresh = true; // nothing has been accumulated yet
  workgroupBarrier();
  for (var t = 0u; t < FOREVER; t++) {
    let key_0 = tile.begin;
    if (key_0 >= end) {
      break;
    }
    let next = next_seen(ids, query_0, key_0 + BLOCK_KEYS, end);
    let partial = is_partial(ids, query_0, key_0, tile.hides);
    for (var j = 0u; j < BLOCK_KEYS / MATRIX_N / STRIP_SUBGROUPS; j++) {
      let keys_0 = MATRIX_N * (part * (BLOCK_KEYS / MATRIX_N / STRIP_SUBGROUPS) + j);
      var products = Sums();
      for (var d = 0u; d < HEAD_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &head_tile, keys_0 * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
        let key_rests = subgroupMatrixLoad<Right, col_major>(
            &head_tile, keys_0 * HEAD_STRIDE + 2u * HEAD_REST + d * (MATRIX_K / 4u), HEAD_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[d], key_rests, products);
        products = subgroupMatrixMultiplyAccumulate(query_rests[d], keys, products);
      }
      for (var d = 0u; d < HEAD_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &head_tile, keys_0 * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[d], keys, products);
      }
      subgroupMatrixStore<row_major>(
          &sums, own_sums + j * (MATRIX_N / 4u), products, SUMS_STRIDE);
    }
    workgroupBarrier();

    var fetched_values = fetch_values(ids, key_0);
    fetched_keys = fetch_keys(ids, select(key_0, next.begin, next.begin < end));
    var scores = scores_of(ids, query, key_0, scale, partial, 0u);
    var row_weights = weights_of(&scores, row_max);
    var total = write_weights(&row_weights, ids, query, key_0, 0u);
    if (!(total <= LARGEST_SUM)) {
      too_large.x = 1u;
    }
    store_value_tile(&fetched_values);
    store_head_tile(&fetched_keys);

    let renew = workgroupUniformLoad(&too_large).x != 0u;
    var rescale = 1.0;
    if (renew) {
      if (thread == 0u) {
        too_large.x = 0u;
      }
      scores = scores_of(ids, query, key_0, scale, partial, 0u);
      var largest_score = row_max;
      for (var n = 0u; n < ROW_VEC4; n++) {
        let pair = max(scores[n].xy, scores[n].zw);
        largest_score = max(largest_score, max(pair.x, pair.y));
      }
      let new_max = row_maximum(largest_score);
      rescale = exp2((row_max - new_max) * LOG2_E);
      row_max = new_max;
      row_sum *= rescale;
      row_weights = weights_of(&scores, row_max);
      total = write_weights(&row_weights, ids, query, key_0, 0u);
    }
    row_sum += total;
    if (renew && fresh) {
      workgroupBarrier();
    } else if (renew || unflushed == FLUSH_TILES) {
      unflushed = 0u;
      for (var r = 0u; r < PART_COLUMNS / COLUMNS_AT_ONCE; r++) {
        workgroupBarrier();
        for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
          subgroupMatrixStore<row_major>(
              &sums, own_sums + c * (MATRIX_N / 4u), accumulator[r * COLUMNS_AT_ONCE + c], SUMS_STRIDE);
          accumulator[r * COLUMNS_AT_ONCE + c] = Sums();
        }
        workgroupBarrier();
        for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
          for (var n = 0u; n < COLUMN_VEC4; n++) {
            output[(r * COLUMNS_AT_ONCE + c) * COLUMN_VEC4 + n] +=
                sums_vec4(sums_at(0u) + c * (MATRIX_N / 4u) + lane_vec4(n));
          }
        }
      }
      if (renew) {
        for (var n = 0u; n < OUTPUT_VEC4; n++) {
          output[n] *= rescale;
        }
      }
      workgroupBarrier();
    }
    fresh = false;
    unflushed++;

    for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
      let left = subgroupMatrixLoad<Left, row_major>(
          &weights, strip_at * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u), WEIGHTS_STRIDE);
      let left_rests = subgroupMatrixLoad<Left, row_major>(
          &weights, strip_at * MATRIX_M * WEIGHTS_STRIDE + (BLOCK_ROWS + j * MATRIX_K) / 4u, WEIGHTS_STRIDE);
      for (var o = 0u; o < PART_COLUMNS; o++) {
        let column = part * PART_COLUMNS + o;
        let values = subgroupMatrixLoad<Right, row_major>(
            &value_tile, j * MATRIX_K * VALUE_STRIDE + column * (MATRIX_N / 4u), VALUE_STRIDE);
        let value_rests = subgroupMatrixLoad<Right, row_major>(
            &value_tile, j * MATRIX_K * VALUE_STRIDE + 2u * VALUE_REST + column * (MATRIX_N / 4u), VALUE_STRIDE);
        accumulator[o] = subgroupMatrixMultiplyAccumulate(left, value_rests, accumulator[o]);
        accumulator[o] = subgroupMatrixMultiplyAccumulate(left_rests, values, accumulator[o]);
        accumulator[o] = subgroupMatrixMultiplyAccumulate(left, values, accumulator[o]);
      }
    }
    tile = next;
  }

  for (var r = 0u; r < PART_COLUMNS / COLUMNS_AT_ONCE; r++) {
    workgroupBarrier();
    for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
      subgroupMatrixStore<row_major>(
          &sums, own_sums + c * (MATRIX_N / 4u), accumulator[r * COLUMNS_AT_ONCE + c], SUMS_STRIDE);
      accumulator[r * COLUMNS_AT_ONCE + c] = Sums();
    }
    workgroupBarrier();
    for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        output[(r * COLUMNS_AT_ONCE + c) * COLUMN_VEC4 + n] +=
            sums_vec4(sums_at(0u) + c * (MATRIX_N / 4u) + lane_vec4(n));
      }
    }
  }

  row_sum = row_total(row_sum);
  var normalise = power_of_two(operand_exponent(V));
  if (SINKS && split == 0u) {
    let sink = bitcast<f32>(table_word(params.sinks_at + params.head_first + ids.head));
    if (!is_minus_infinity(sink)) {
      if (any_not_finite(vec4f(sink))) {
        row_sum = not_a_number();
      } else {
        let new_max = max(row_max, sink);
        let rescale = exp2((row_max - new_max) * LOG2_E);
        row_sum = row_sum * rescale + exp_of_units(vec4f(sink - new_max)).x;
        normalise *= rescale;
        row_max = new_max;
      }
    }
  }
  let empty = row_sum == 0.0;
  normalise /= row_sum;
  if (DROPOUT) {
    normalise *= params.kept_scale;
  }
  let at = query_at(params.output, ids, query) + split * params.split_output;
  for (var o = 0u; o < PART_COLUMNS; o++) {
    for (var n = 0u; n < COLUMN_VEC4; n++) {
      let d4 = (lane_area() * PART_COLUMNS + o) * (MATRIX_N / 4u) + lane_vec4(n);
      if (query < ids.query_rows && d4 < VALUE_VEC4) {
        store_result_0(at, d4, VALUE_SIZE, select(output[o * COLUMN_VEC4 + n] * normalise, vec4f(), empty));
      }
    }
  }
  if (query < ids.query_rows && lane % LANES_PER_ROW == 0u) {
    // As in forward.wgsl: a float and the exact rest.
    let log_sum = log_or_nan(row_sum * exp2(-WEIGHT_BITS));
    let sum = row_max + log_sum;
    let tail = rounding_error(row_max, log_sum);
    let row = query_at(params.rows, ids, query) + split * params.split_rows;
    lse[row] = select(sum, negative_infinity(), empty);
    lse_tail[row] = select(tail, 0.0, empty);
  }
}
