// Forward pass: a workgroup makes the output and LSE of one tile of queries of one head, walking over the tiles of
// keys with the online softmax of FlashAttention-2 (Dao, 2023, algorithm 1).
// result_0 is the output [B,Nq,Hq,Dv] or [B,Hq,Nq,Dv]. With SPLIT the keys are cut into parts, each with a workgroup and
// results of its own; merge_splits joins them.

@group(0) @binding(9) var<storage, read_write> lse: array<f32>;       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read_write> lse_tail: array<f32>; // the same: what rounding took from the LSE

fn run_workgroup(group_id: vec3u, groups: vec3u, index: u32, lanes: u32) {
  start_thread(index);
  let tiles = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * params.heads * params.batches * params.splits) {
    return;
  }
  let place = place_of(item, tiles, params.heads * params.batches * params.splits);
  let split = place.head / params.heads / params.batches;
  let ids = head_ids(place.head / params.heads % params.batches, place.head % params.heads);
  // Under causal masking the last queries see the most keys: start with them, so that none is left over at the end.
  let query_0 = (tiles - 1u - place.tile) * BLOCK_QUERIES;
  if (query_0 >= ids.query_rows) {
    return;
  }

  var row_max: Rows;   // of all scores so far, or NOT_SEEN
  var row_sum: Rows;   // this thread's share of the denominator
  var accumulator = QueryTile();
  for (var i = 0u; i < ROWS; i++) {
    row_max[i] = NOT_SEEN;
    row_sum[i] = 0.0;
    let query = query_0 + query_row(i);
    if (SINKS && params.resume == 0u && split == 0u) {
      let sink = bitcast<f32>(table_word(params.sinks_at + params.head_first + ids.head));
      if (!is_minus_infinity(sink)) {
        // A sink of NaN or ∞ makes its rows NaN. WGSL's max may lose it, the sum does not.
        let broken = any_not_finite(vec4f(sink));
        row_max[i] = select(sink, NOT_SEEN, broken);
        row_sum[i] = select(0.0, select(1.0, not_a_number(), broken), tx == 0u);
      }
    }
    if (params.resume != 0u && query < ids.query_rows) {
      // What an earlier window of keys left: its normalised output counts as one key with the score LSE, and with the
      // LSE's tail a little more.
      let row = query_at(params.rows, ids, query);
      let earlier = lse[row];
      if (!(earlier < NOT_SEEN)) {
        let weight = 1.0 + lse_tail[row];
        row_max[i] = earlier;
        row_sum[i] = select(0.0, weight, tx == 0u);
        let at = query_at(params.output, ids, query);
        for (var j = 0u; j < COLUMNS; j++) {
          if (column(j) < VALUE_VEC4) {
            accumulator[i * COLUMNS + j] = weight * load_result_0(at, column(j), VALUE_SIZE);
          }
        }
      }
    }
  }

  var begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  var end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  if (SPLIT) {
    begin = max(begin, split * params.split_keys);
    end = min(end, (split + 1u) * params.split_keys);
  }
  for (var key_0 = begin; key_0 < end; key_0 += BLOCK_KEYS) {
    let look = look_at_tile(ids, query_0, key_0);
    if (!look.shows) {
      continue;
    }
    let partial = is_partial(ids, query_0, key_0, look.hides);

    var scores = Scores();
    make_scores(&scores, ids, query_0, key_0);

    var new_max: Rows;
    for (var i = 0u; i < ROWS; i++) {
      let query = query_0 + query_row(i);
      var score = with_additions(cap(scaled(scores[i])), ids, query, key_0 + 4u * tx);
      if (partial) {
        score = select(vec4f(NOT_SEEN), score, sees_four(ids, query, key_0 + 4u * tx));
      }
      scores[i] = score;
      let largest = max(score.xy, score.zw);
      new_max[i] = max(row_max[i], max(largest.x, largest.y));
    }
    row_maxima(&new_max, lanes);

    for (var i = 0u; i < ROWS; i++) {
      let weights = select(exp_or_nan(scores[i] - new_max[i]), vec4f(), scores[i] == vec4f(NOT_SEEN));
      let rescale = exp(row_max[i] - new_max[i]);
      row_sum[i] = row_sum[i] * rescale + dot(weights, vec4f(1.0));
      row_max[i] = new_max[i];
      for (var j = 0u; j < COLUMNS; j++) {
        accumulator[i * COLUMNS + j] *= rescale;
      }
      scores[i] = weights;
      if (DROPOUT) {
        scores[i] *= factors_of(ids, query_0 + query_row(i), key_0 + 4u * tx);
      }
    }
    store_weights(&scores);

    for (var step = 0u; step < BLOCK_KEYS / ROW_CHUNK; step++) {
      workgroupBarrier();
      stage_value_rows(ids, key_0 + step * ROW_CHUNK, partial);
      workgroupBarrier();
      if (!partial || right_is_clean()) {
        multiply_weights(&accumulator, step);
      } else {
        multiply_seen_weights(&accumulator, ids, query_0, key_0, step);
      }
    }
  }

  row_totals(&row_sum, lanes);
  for (var i = 0u; i < ROWS; i++) {
    let query = query_0 + query_row(i);
    if (query < ids.query_rows) {
      let empty = row_sum[i] == 0.0;
      let normalise = 1.0 / row_sum[i];
      let at = query_at(params.output, ids, query) + split * params.split_output;
      for (var j = 0u; j < COLUMNS; j++) {
        if (column(j) < VALUE_VEC4 && !(SPLIT && empty)) { // merging passes over parts that saw nothing
          let value = select(accumulator[i * COLUMNS + j] * normalise, vec4f(), empty);
          store_result_0(at, column(j), VALUE_SIZE, value);
        }
      }
      if (tx == 0u) {
        // The sum of two floats as a float and the exact rest. exp(S − LSE) in the backward pass is off by as much as
        // LSE is, and float32 holds a large LSE no better than it holds the scores.
        let log_sum = log_or_nan(row_sum[i]);
        let sum = row_max[i] + log_sum;
        let row = query_at(params.rows, ids, query) + split * params.split_rows;
        lse[row] = select(sum, negative_infinity(), empty);
        lse_tail[row] = select(rounding_error(row_max[i], log_sum), 0.0, empty);
      }
    }
  }
}
