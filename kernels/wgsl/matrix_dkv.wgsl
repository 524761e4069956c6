// dV = (P∘keep)ᵀ·dO and dK = softmaxScale · dSᵀ·Q on subgroup matrices; see backward_dkv.wgsl. result_0 is dK,
// result_1 dV. Strips are of keys (matrix_pairs.wgsl); side 0 sums dV and side 1 dK, each from the other's tile. A side has
// PARTS subgroups: each makes the products of some queries of a tile, and sums some columns.
//
// An area of `sums` is [query of the tile][key of the strip]. LANES_PER_QUERY lanes share a query of a strip, PART_VEC4
// fours of keys each.

const PART_ROWS = BLOCK_ROWS / PARTS;
// Whether the next tile is fetched before the products of this one (D = 128: 4% faster) or after its sums (D = 64: 6%).
const FETCHES_FIRST = PARTS > 1u;
const PART_SUMS = AREA / PARTS;

alias Statistics = array<vec4f, QUERY_TRIPS>;

// The query of the tile whose n-th pairs this lane makes. Lanes side by side have queries side by side: in different banks.
fn lane_query(n: u32) -> u32 {
  return (subgroup % GROUP * LANES + lane % LANES + GROUP * LANES * n) % BLOCK_ROWS;
}

// P and dS of this lane's queries.
alias LanePairs = array<HalfPairs, STRIPS * QUERY_TRIPS * PART_VEC4>;

fn pairs_of(
    ids: HeadIds, query_0: u32, strip: u32, statistics: ptr<function, Statistics>, scales: PairScales,
    partial: bool) -> LanePairs {
  var of_lane: LanePairs;
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < QUERY_TRIPS; n++) {
      let at = subgroup % GROUP * LANES + lane % LANES + GROUP * LANES * n;
      if (QUERIES_EXACT || at / BLOCK_ROWS < LANES_PER_QUERY) {
        for (var c = 0u; c < PART_VEC4; c++) {
          let area = subgroup % SUBGROUPS / GROUP * 2u * STRIPS + r; // of side 0; that of side 1 is STRIPS further on
          let four = at / BLOCK_ROWS * PART_VEC4 + c;
          let sums_at = area * AREA + at % BLOCK_ROWS * SUMS_STRIDE + four;
          let product = bitcast<vec4f>(sums[sums_at]);
          let d_weights = bitcast<vec4f>(sums[sums_at + STRIPS * AREA]);
          of_lane[(r * QUERY_TRIPS + n) * PART_VEC4 + c] = half_pairs(
              product, d_weights, (*statistics)[n], ids, query_0 + at % BLOCK_ROWS,
              strip + MATRIX_M * r + 4u * four, scales, partial);
        }
      }
    }
  }
  return of_lane;
}

// As f16: P in the areas of side 0 and dS in those of side 1.
fn write_pairs(of_lane: ptr<function, LanePairs>) {
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < QUERY_TRIPS; n++) {
      let at = subgroup % GROUP * LANES + lane % LANES + GROUP * LANES * n;
      if (QUERIES_EXACT || at / BLOCK_ROWS < LANES_PER_QUERY) {
        for (var c = 0u; c < PART_VEC4; c++) {
          let area = subgroup % SUBGROUPS / GROUP * 2u * STRIPS + r;
          let four = at / BLOCK_ROWS * PART_VEC4 + c;
          let pair = (*of_lane)[(r * QUERY_TRIPS + n) * PART_VEC4 + c];
          let weights = vec4h(pair.weights);
          let scores = vec4h(pair.scores);
          let to = PAIRS_AT + area * PAIRS_AREA + at % BLOCK_ROWS * PAIRS_STRIDE + four / 2u;
          let half = four % 2u * 2u; // of four words
          sums[to][half] = bitcast<vec2u>(weights).x;
          sums[to][half + 1u] = bitcast<vec2u>(weights).y;
          sums[to + STRIPS * PAIRS_AREA][half] = bitcast<vec2u>(scores).x;
          sums[to + STRIPS * PAIRS_AREA][half + 1u] = bitcast<vec2u>(scores).y;
          if (SPLIT_OPERANDS) {
            let weight_rests = bitcast<vec2u>(rests_of(pair.weights, weights, REST_FACTOR));
            let score_rests = bitcast<vec2u>(rests_of(pair.scores, scores, REST_FACTOR));
            sums[to + PAIRS_REST][half] = weight_rests.x;
            sums[to + PAIRS_REST][half + 1u] = weight_rests.y;
            sums[to + STRIPS * PAIRS_AREA + PAIRS_REST][half] = score_rests.x;
            sums[to + STRIPS * PAIRS_AREA + PAIRS_REST][half + 1u] = score_rests.y;
          }
        }
      }
    }
  }
}

fn next_seen_queries(ids: HeadIds, from_query: u32, key_0: u32, end: u32) -> Tile {
  var begin = from_query;
  var look = look_at_tile(ids, begin, key_0);
  for (var tile = 0u; tile < FOREVER; tile++) {
    if (look.shows || begin >= end) {
      break;
    }
    begin += BLOCK_QUERIES;
    look = look_at_tile(ids, begin, key_0);
  }
  return Tile(begin, look.hides);
}

// Adds P of a tile times its dO, or dS times its queries.
fn add_gradients(accumulator: ptr<function, StripSums>) {
  let areas = (subgroup % SUBGROUPS / GROUP * 2u + subgroup % 2u) * STRIPS;
  let other_tile = (subgroup + 1u) % 2u * TILE_LENGTH;
  for (var j = 0u; j < BLOCK_QUERIES / MATRIX_K; j++) {
    var left: array<Left, STRIPS>;
    var left_rests: array<Left, STRIPS>;
    for (var r = 0u; r < STRIPS; r++) {
      let at = PAIRS_AT + (areas + r) * PAIRS_AREA + j * MATRIX_K * PAIRS_STRIDE;
      left[r] = subgroupMatrixLoad<Left, col_major>(&sums, at, PAIRS_STRIDE);
      if (SPLIT_OPERANDS) {
        left_rests[r] = subgroupMatrixLoad<Left, col_major>(&sums, at + PAIRS_REST, PAIRS_STRIDE);
      }
    }
    for (var o = 0u; o < COLUMNS; o++) {
      let at = other_tile + j * MATRIX_K * TILE_STRIDE + (subgroup % GROUP / 2u * COLUMNS + o) * (MATRIX_N / 4u);
      let rows = subgroupMatrixLoad<Right, row_major>(&tiles, at, TILE_STRIDE);
      if (SPLIT_OPERANDS) {
        let row_rests = subgroupMatrixLoad<Right, row_major>(&tiles, at + TILE_REST, TILE_STRIDE);
        let small_rows = subgroupMatrixScalarMultiply(rows, f16(1.0 / REST_FACTOR));
        for (var r = 0u; r < STRIPS; r++) {
          (*accumulator)[r * COLUMNS + o] =
              subgroupMatrixMultiplyAccumulate(left[r], row_rests, (*accumulator)[r * COLUMNS + o]);
          (*accumulator)[r * COLUMNS + o] =
              subgroupMatrixMultiplyAccumulate(left_rests[r], small_rows, (*accumulator)[r * COLUMNS + o]);
        }
      }
      for (var r = 0u; r < STRIPS; r++) {
        (*accumulator)[r * COLUMNS + o] =
            subgroupMatrixMultiplyAccumulate(left[r], rows, (*accumulator)[r * COLUMNS + o]);
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
  let tiles_of_head = (params.keys + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let key_heads = params.heads / params.heads_per_key;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles_of_head * key_heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles_of_head, key_heads * params.batches);
  let key_head = place.head % key_heads;
  let key_0 = place.tile * BLOCK_KEYS;
  let of_keys = head_ids(place.head / key_heads, key_head * params.heads_per_key);
  if (key_0 >= of_keys.key_rows) {
    return;
  }
  let side = subgroup % 2u;
  let part = subgroup % GROUP / 2u; // of its side
  let areas = (subgroup % SUBGROUPS / GROUP * 2u + subgroup % 2u) * STRIPS; // those of its side before its own
  let own_sums = areas * AREA + subgroup % GROUP / 2u * PART_SUMS;
  let strip = key_0 + MATRIX_M * STRIPS * (subgroup / GROUP);
  let scales = pair_scales();

  var operands: array<Left, STRIPS * OPERAND_STEPS>; // k or v
  var staged = fetch_staged(of_keys, strip);
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
  var accumulator: StripSums; // dV or dK
  var gradients: Gradients;
  for (var r = 0u; r < STRIPS; r++) {
    for (var o = 0u; o < COLUMNS; o++) {
      accumulator[r * COLUMNS + o] = Sums();
    }
  }

  var turn = 0u; // of the columns to leave the matrices
  let begin = query_begin(of_keys, key_0) / BLOCK_QUERIES * BLOCK_QUERIES;
  let end = select(0u, query_end(of_keys, min(key_0 + BLOCK_KEYS, of_keys.keys) - 1u), key_0 < of_keys.keys);
  for (var h = 0u; h < FOREVER; h++) {
    if (h >= params.heads_per_key) {
      break;
    }
    var ids = of_keys;
    ids.head += h;
    var tile = next_seen_queries(ids, begin, key_0, end);
    var next = next_seen_queries(ids, tile.begin + BLOCK_QUERIES, key_0, end);
    var fetched = fetch_tile(ids, min(tile.begin, ids.queries));
    workgroupBarrier(); // until nobody reads the tiles of the head before
    store_tile(&fetched);
    if (!FETCHES_FIRST) {
      fetched = fetch_tile(ids, min(next.begin, ids.queries));
    }
    workgroupBarrier();
    for (var t = 0u; t < FOREVER; t++) {
      let query_0 = tile.begin;
      if (query_0 >= end) {
        break;
      }
      if (FETCHES_FIRST) {
        next = next_seen_queries(ids, query_0 + BLOCK_QUERIES, key_0, end);
        fetched = fetch_tile(ids, min(next.begin, ids.queries));
      }
      var statistics: Statistics;
      for (var n = 0u; n < QUERY_TRIPS; n++) {
        statistics[n] = statistics_of(ids, query_0 + lane_query(n));
      }
      let rows_at = subgroup % 2u * TILE_LENGTH + part * PART_ROWS * TILE_STRIDE;
      for (var j = 0u; j < BLOCK_QUERIES / MATRIX_N / PARTS; j++) {
        // In the kernel itself: where a function is given a place in workgroup memory Dawn clamps it (25% of the time).
        let rows_0 = rows_at + j * MATRIX_N * TILE_STRIDE;
        var products: array<Sums, STRIPS>;
        for (var r = 0u; r < STRIPS; r++) {
          products[r] = Sums();
        }
        if (SPLIT_OPERANDS) {
          for (var d = 0u; d < STEPS; d++) {
            let rows = subgroupMatrixLoad<Right, col_major>(&tiles, rows_0 + d * (MATRIX_K / 4u), TILE_STRIDE);
            let rests = subgroupMatrixLoad<Right, col_major>(&tiles, rows_0 + TILE_REST + d * (MATRIX_K / 4u), TILE_STRIDE);
            for (var r = 0u; r < STRIPS; r++) {
              products[r] = subgroupMatrixMultiplyAccumulate(operands[r * OPERAND_STEPS + REST_STEPS + d], rows, products[r]);
              products[r] = subgroupMatrixMultiplyAccumulate(operands[r * OPERAND_STEPS + d], rests, products[r]);
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
          subgroupMatrixStore<col_major>(
              &sums, own_sums + r * AREA + j * MATRIX_N * SUMS_STRIDE, products[r], SUMS_STRIDE);
        }
      }
      workgroupBarrier();

      var lane_pairs: LanePairs;
      if (is_partial(ids, query_0, key_0, tile.hides)) {
        lane_pairs = pairs_of(ids, query_0, strip, &statistics, scales, true);
      } else {
        lane_pairs = pairs_of(ids, query_0, strip, &statistics, scales, false);
      }
      if (IN_PLACE) {
        workgroupBarrier();
      }
      write_pairs(&lane_pairs);
      workgroupBarrier();
      add_gradients(&accumulator);
      workgroupBarrier();
      store_tile(&fetched);
      tile = next;
      if (!FETCHES_FIRST) {
        next = next_seen_queries(ids, next.begin + BLOCK_QUERIES, key_0, end);
        fetched = fetch_tile(ids, min(next.begin, ids.queries));
      }
      if (SPLIT_OPERANDS) {
        store_column(&accumulator, turn);
      }
      workgroupBarrier();
      if (SPLIT_OPERANDS) {
        take_column(&gradients, turn);
        turn = (turn + 1u) % COLUMNS;
        workgroupBarrier();
      }
    }
  }

  let unscale_keys = params.scale * power_of_two(operand_exponent(Q)) * power_of_two(-gradient_exponent());
  var unscale_values = power_of_two(operand_exponent(D_OUTPUT)) * power_of_two(-WEIGHT_EXPONENT);
  if (DROPOUT) {
    unscale_values *= params.kept_scale;
  }
  take_all(&accumulator, &gradients);
  for (var r = 0u; r < STRIPS; r++) {
    let key = strip + MATRIX_M * r + lane / LANES_PER_ROW;
    for (var o = 0u; o < COLUMNS; o++) {
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        let d4 = (part * COLUMNS + o) * (MATRIX_N / 4u) + lane % LANES_PER_ROW + LANES_PER_ROW * n;
        let gradient = gradients[(r * COLUMNS + o) * COLUMN_VEC4 + n];
        if (key < of_keys.key_rows && side == 0u && WANT_VALUES && d4 < VALUE_VEC4) {
          store_result_1(key_at(params.v, of_keys, key), d4, VALUE_SIZE, gradient * unscale_values);
        }
        if (key < of_keys.key_rows && side == 1u && WANT_KEYS && d4 < HEAD_VEC4) {
          store_result_0(key_at(params.k, of_keys, key), d4, HEAD_SIZE, gradient * unscale_keys);
        }
      }
    }
  }
}
