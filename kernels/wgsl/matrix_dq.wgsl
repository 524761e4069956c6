// dQ = softmaxScale · dS·K on subgroup matrices; see backward_dq.wgsl. result_0 is dQ, which lies like q. Strips are of
// queries (matrix_pairs.wgsl); each side sums half of the columns of dQ.

// dS of this lane's rows, and of its side's half of the keys.
alias LaneGradients = array<vec4f, STRIPS * ROW_VEC4>;

fn gradients_of(
    ids: HeadIds, strip: u32, key_0: u32, statistics: ptr<function, array<vec4f, STRIPS>>, scales: PairScales,
    partial: bool) -> LaneGradients {
  var gradients: LaneGradients;
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < ROW_VEC4; n++) {
      let row = lane % LANES / LANES_PER_ROW;
      let four = subgroup % 2u * (BLOCK_ROWS / 8u) + lane % LANES_PER_ROW + LANES_PER_ROW * n;
      let at = (subgroup % SUBGROUPS / 2u * 2u * STRIPS + r) * AREA + row * SUMS_STRIDE + four;
      let product = bitcast<vec4f>(sums[at]);
      let d_weights = bitcast<vec4f>(sums[at + STRIPS * AREA]);
      gradients[r * ROW_VEC4 + n] = half_pairs(
          product, d_weights, (*statistics)[r], ids, strip + MATRIX_M * r + row, key_0 + 4u * four, scales,
          partial).scores;
    }
  }
  return gradients;
}

// As f16: in areas of PAIRS_SIDES sides, of which the first is used.
fn write_gradients(gradients: ptr<function, LaneGradients>) {
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < ROW_VEC4; n++) {
      let row = lane % LANES / LANES_PER_ROW;
      let four = subgroup % 2u * (BLOCK_ROWS / 8u) + lane % LANES_PER_ROW + LANES_PER_ROW * n;
      let scores = vec4h((*gradients)[r * ROW_VEC4 + n]);
      let to = PAIRS_AT + (subgroup % SUBGROUPS / 2u * PAIRS_SIDES * STRIPS + r) * PAIRS_AREA + row * PAIRS_STRIDE + four / 2u;
      let half = four % 2u * 2u; // of four words
      sums[to][half] = bitcast<vec2u>(scores).x;
      sums[to][half + 1u] = bitcast<vec2u>(scores).y;
      if (SPLIT_OPERANDS) {
        let rests = bitcast<vec2u>(rests_of((*gradients)[r * ROW_VEC4 + n], scores, REST_FACTOR));
        sums[to + PAIRS_REST][half] = rests.x;
        sums[to + PAIRS_REST][half + 1u] = rests.y;
      }
    }
  }
}

// Adds dS of a tile times its keys.
fn add_gradients(accumulator: ptr<function, StripSums>) {
  for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
    var left: array<Left, STRIPS>;
    var left_rests: array<Left, STRIPS>;
    for (var r = 0u; r < STRIPS; r++) {
      let at =
          PAIRS_AT + (subgroup % SUBGROUPS / 2u * PAIRS_SIDES * STRIPS + r) * PAIRS_AREA + j * (MATRIX_K / 8u);
      left[r] = subgroupMatrixLoad<Left, row_major>(&sums, at, PAIRS_STRIDE);
      if (SPLIT_OPERANDS) {
        left_rests[r] = subgroupMatrixLoad<Left, row_major>(&sums, at + PAIRS_REST, PAIRS_STRIDE);
      }
    }
    for (var o = 0u; o < COLUMNS; o++) {
      let at = j * MATRIX_K * TILE_STRIDE + (subgroup % 2u * COLUMNS + o) * (MATRIX_N / 4u);
      let keys = subgroupMatrixLoad<Right, row_major>(&tiles, at, TILE_STRIDE);
      if (SPLIT_OPERANDS) {
        let key_rests = subgroupMatrixLoad<Right, row_major>(&tiles, at + TILE_REST, TILE_STRIDE);
        let small_keys = subgroupMatrixScalarMultiply(keys, f16(1.0 / REST_FACTOR));
        for (var r = 0u; r < STRIPS; r++) {
          (*accumulator)[r * COLUMNS + o] =
              subgroupMatrixMultiplyAccumulate(left[r], key_rests, (*accumulator)[r * COLUMNS + o]);
          (*accumulator)[r * COLUMNS + o] =
              subgroupMatrixMultiplyAccumulate(left_rests[r], small_keys, (*accumulator)[r * COLUMNS + o]);
        }
      }
      for (var r = 0u; r < STRIPS; r++) {
        (*accumulator)[r * COLUMNS + o] =
            subgroupMatrixMultiplyAccumulate(left[r], keys, (*accumulator)[r * COLUMNS + o]);
      }
    }
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
  let tiles_of_head = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles_of_head * params.heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles_of_head, params.heads * params.batches);
  let ids = head_ids(place.head / params.heads, place.head % params.heads);
  let query_0 = (tiles_of_head - 1u - place.tile) * BLOCK_QUERIES;
  if (query_0 >= ids.query_rows) {
    return;
  }
  let side = subgroup % 2u;
  let strip = query_0 + MATRIX_M * STRIPS * (subgroup / 2u);
  let row = lane / LANES_PER_ROW;
  let own_sums = subgroup % SUBGROUPS * STRIPS * AREA; // where its areas begin
  let scales = pair_scales();
  var statistics: array<vec4f, STRIPS>;
  for (var r = 0u; r < STRIPS; r++) {
    statistics[r] = statistics_of(ids, strip + MATRIX_M * r + row);
  }

  var operands: array<Left, STRIPS * OPERAND_STEPS>; // q or dO
  var staged = fetch_staged(ids, strip);
  for (var p = 0u; p < PASSES; p++) {
    stage(&staged, p);
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      for (var d = 0u; d < STAGED_STEPS; d++) {
        operands[r * OPERAND_STEPS + p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
            &sums, own_sums + r * AREA + d * (MATRIX_K / 8u), SUMS_STRIDE);
      }
    }
    workgroupBarrier();
  }
  var accumulator: StripSums;
  var gradients: Gradients;
  for (var r = 0u; r < STRIPS; r++) {
    for (var o = 0u; o < COLUMNS; o++) {
      accumulator[r * COLUMNS + o] = Sums();
    }
  }

  let begin = key_begin(ids, query_0) / BLOCK_KEYS * BLOCK_KEYS;
  let end = select(0u, key_end(ids, min(query_0 + BLOCK_QUERIES, ids.queries) - 1u), query_0 < ids.queries);
  var tile = next_seen(ids, query_0, begin, end);
  var fetched = fetch_tile(ids, min(tile.begin, ids.keys));
  store_tile(&fetched);
  workgroupBarrier();
  for (var t = 0u; t < FOREVER; t++) {
    let key_0 = tile.begin;
    if (key_0 >= end) {
      break;
    }
    let next = next_seen(ids, query_0, key_0 + BLOCK_KEYS, end);
    fetched = fetch_tile(ids, min(next.begin, ids.keys));
    for (var j = 0u; j < BLOCK_KEYS / MATRIX_N; j++) {
      // In the kernel itself: where a function is given a place in workgroup memory Dawn clamps it (25% of the time).
      let rows_0 = subgroup % 2u * TILE_LENGTH + j * MATRIX_N * TILE_STRIDE;
      var products: array<Sums, STRIPS>;
      for (var r = 0u; r < STRIPS; r++) {
        products[r] = Sums();
      }
      if (SPLIT_OPERANDS) {
        for (var d = 0u; d < STEPS; d++) {
          let rows = subgroupMatrixLoad<Right, col_major>(&tiles, rows_0 + d * (MATRIX_K / 4u), TILE_STRIDE);
          let rests = subgroupMatrixLoad<Right, col_major>(&tiles, rows_0 + TILE_REST + d * (MATRIX_K / 4u), TILE_STRIDE);
          for (var r = 0u; r < STRIPS; r++) {
            products[r] = subgroupMatrixMultiplyAccumulate(operands[r * OPERAND_STEPS + d], rests, products[r]);
            products[r] = subgroupMatrixMultiplyAccumulate(operands[r * OPERAND_STEPS + REST_STEPS + d], rows, products[r]);
          }
        }
      }
      for (var d = 0u; d < STEPS; d++) {
        let rows = subgroupMatrixLoad<Right, col_major>(&tiles, rows_0 + d * (MATRIX_K / 4u), TILE_STRIDE);
        for (var r = 0u; r < STRIPS; r++) {
          products[r] = subgroupMatrixMultiplyAccumulate(operands[r * OPERAND_STEPS + d], rows, products[r]);
        }
      }
      for (var r = 0u; r < STRIPS; r++) {
        subgroupMatrixStore<row_major>(
            &sums, own_sums + r * AREA + j * (MATRIX_N / 4u), products[r], SUMS_STRIDE);
      }
    }
    workgroupBarrier();

    var scores: LaneGradients;
    if (is_partial(ids, query_0, key_0, tile.hides)) {
      scores = gradients_of(ids, strip, key_0, &statistics, scales, true);
    } else {
      scores = gradients_of(ids, strip, key_0, &statistics, scales, false);
    }
    if (IN_PLACE) {
      workgroupBarrier();
    }
    write_gradients(&scores);
    workgroupBarrier();
    add_gradients(&accumulator);
    workgroupBarrier();
    store_tile(&fetched);
    if (SPLIT_OPERANDS) {
      store_column(&accumulator, t % COLUMNS);
    }
    workgroupBarrier();
    if (SPLIT_OPERANDS) {
      take_column(&gradients, t % COLUMNS);
      workgroupBarrier();
    }
    tile = next;
  }

  let unscale = params.scale * power_of_two(operand_exponent(K)) * power_of_two(-gradient_exponent());
  take_all(&accumulator, &gradients);
  for (var r = 0u; r < STRIPS; r++) {
    let query = strip + MATRIX_M * r + row;
    let at = query_at(params.q, ids, query);
    let empty = is_empty_row(statistics[r]);
    for (var o = 0u; o < COLUMNS; o++) {
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        let d4 = (side * COLUMNS + o) * (MATRIX_N / 4u) + lane % LANES_PER_ROW + LANES_PER_ROW * n;
        if (query < ids.query_rows && d4 < HEAD_VEC4) {
          let gradient = gradients[(r * COLUMNS + o) * COLUMN_VEC4 + n] * unscale;
          store_result_0(at, d4, HEAD_SIZE, select(gradient, vec4f(), empty));
        }
      }
    }
  }
}
