// dV = (P∘keep)ᵀ·dO and dK = softmaxScale · dSᵀ·Q on subgroup matrices; see backward_dkv.wgsl. result_0 is dK, result_1
// dV. A strip is MATRIX_M keys. head_tile holds rows of Q, value_tile rows of dO.
//
// `sums` of a subgroup: QKᵀ as [query][key of the strip], then dO·Vᵀ the same way. A lane takes whole queries: where it
// has read the products of one, it writes P and dS of it as f16, one after the other.

const SUBGROUP_SUMS = BLOCK_ROWS * SUMS_STRIDE;
const KEY_VEC4 = MATRIX_M / 4u;
// A tile is fetched while the one before is used where registers bear it, else when it is needed (NOTES.md).
const FETCHES_EARLY = max(HEAD_SIZE, VALUE_SIZE) <= 64u;
// P is multiplied by this before it becomes f16; the dropout factor comes afterwards. P ≤ 1, so it fits.
const WEIGHT_EXPONENT = 14;

fn halves_of(low: vec4f, high: vec4f) -> vec4u {
  return vec4u(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

// A block of dK or dV on its way out: each lane gets vec4s n of [key of the strip][element].
fn store_block(block: Sums) {
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&sums, 2u * (subgroup % SUBGROUPS) * SUBGROUP_SUMS, block, MATRIX_N / 4u);
  workgroupBarrier();
}

fn block_vec4(n: u32) -> u32 {
  return lane % LANES + LANES * n;
}

fn block_value(n: u32) -> vec4f {
  return bitcast<vec4f>(sums[2u * (subgroup % SUBGROUPS) * SUBGROUP_SUMS + block_vec4(n)]);
}

// P and dS of this lane's queries, as f16, in the place of the products that they come from.
fn write_pairs(
    ids: HeadIds, query_0: u32, strip: u32, scale: f32, d_scale: f32, weight_scale: f32, gradient_scale: f32,
    partial: bool) {
  for (var n = 0u; n < QUERY_TRIPS; n++) {
    let row = lane % LANES + LANES * n;
    if (QUERIES_EXACT || row < BLOCK_QUERIES) {
      let query = query_0 + row;
      let statistics = statistics_of(ids, query);
      let at = 2u * (subgroup % SUBGROUPS) * SUBGROUP_SUMS + row * SUMS_STRIDE;
      var weights: array<vec4f, KEY_VEC4>;
      var gradients: array<vec4f, KEY_VEC4>;
      for (var c = 0u; c < KEY_VEC4; c++) {
        var d_weights = vec4f();
        if (WANT_KEYS) {
          d_weights = bitcast<vec4f>(sums[at + SUBGROUP_SUMS + c]) * d_scale;
        }
        let product = bitcast<vec4f>(sums[at + c]) * scale;
        let pair = pair_gradients(product, d_weights, statistics, ids, query, strip + 4u * c, partial);
        weights[c] = pair.weights;
        if (DROPOUT) {
          weights[c] = select(vec4f(), pair.weights, pair.factors > vec4f());
        }
        gradients[c] = pair.scores;
      }
      for (var c = 0u; c < KEY_VEC4 / 2u; c++) {
        sums[at + c] = halves_of(weights[2u * c] * weight_scale, weights[2u * c + 1u] * weight_scale);
        sums[at + KEY_VEC4 / 2u + c] =
            halves_of(gradients[2u * c] * gradient_scale, gradients[2u * c + 1u] * gradient_scale);
      }
    }
  }
}

fn next_seen_queries(ids: HeadIds, from_query: u32, key_0: u32, end: u32) -> u32 {
  var query_0 = from_query;
  while (query_0 < end) {
    if (is_seen(ids, query_0, key_0)) {
      break;
    }
    query_0 += BLOCK_QUERIES;
  }
  return query_0;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  if (!is_for_this_kernel()) {
    return;
  }
  start_thread(index);
  let tiles = (params.keys + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let key_heads = params.heads / params.heads_per_key;
  let item = group_id.x + group_id.y * groups.x;
  if (item >= tiles * key_heads * params.batches) {
    return;
  }
  let place = place_of(item, tiles, key_heads * params.batches);
  let key_head = place.head % key_heads;
  let key_0 = place.tile * BLOCK_KEYS;
  let of_keys = head_ids(place.head / key_heads, key_head * params.heads_per_key);
  if (key_0 >= of_keys.key_rows) {
    return;
  }
  let strip = key_0 + MATRIX_M * subgroup;
  let scale = product_scale();
  let d_scale = d_weights_scale();
  let gradient_scale = power_of_two(gradient_exponent());
  let weight_scale = power_of_two(WEIGHT_EXPONENT);
  let half_row = half_key_row(of_keys, strip);

  // In registers: read from memory in each tile they would cost more than half of the speed (NOTES.md).
  var keys: array<Left, HEAD_STEPS>;
  var values: array<Left, VALUE_STEPS>;
  for (var d = 0u; d < HEAD_STEPS; d++) {
    keys[d] = subgroupMatrixLoad<Left, row_major>(&half_k, half_row * HEAD_VEC8 + d * (MATRIX_K / 8u), HEAD_VEC8);
  }
  for (var d = 0u; d < VALUE_STEPS; d++) {
    values[d] = subgroupMatrixLoad<Left, row_major>(&half_v, half_row * VALUE_VEC8 + d * (MATRIX_K / 8u), VALUE_VEC8);
  }
  var d_keys: array<Sums, HEAD_COLUMNS>;
  var d_values: array<Sums, VALUE_COLUMNS>;
  for (var o = 0u; o < HEAD_COLUMNS; o++) {
    d_keys[o] = Sums();
  }
  for (var o = 0u; o < VALUE_COLUMNS; o++) {
    d_values[o] = Sums();
  }

  let begin = query_begin(of_keys, key_0) / BLOCK_QUERIES * BLOCK_QUERIES;
  let end = select(0u, query_end(of_keys, min(key_0 + BLOCK_KEYS, of_keys.keys) - 1u), key_0 < of_keys.keys);
  for (var h = 0u; h < params.heads_per_key; h++) {
    var ids = of_keys;
    ids.head += h;
    var query_0 = next_seen_queries(ids, begin, key_0, end);
    var fetched_queries: HeadFetch;
    var fetched_d_outputs: ValueFetch;
    if (FETCHES_EARLY) {
      fetched_queries = fetch_queries(ids, min(query_0, ids.queries));
      fetched_d_outputs = fetch_d_outputs(ids, min(query_0, ids.queries));
    }
    while (query_0 < end) {
      let next = next_seen_queries(ids, query_0 + BLOCK_QUERIES, key_0, end);
      if (!FETCHES_EARLY) {
        fetched_queries = fetch_queries(ids, query_0);
        fetched_d_outputs = fetch_d_outputs(ids, query_0);
      }
      workgroupBarrier();
      store_head_tile(&fetched_queries);
      store_value_tile(&fetched_d_outputs);
      workgroupBarrier();
      for (var j = 0u; j < BLOCK_QUERIES / MATRIX_N; j++) {
        var products = Sums();
        for (var d = 0u; d < HEAD_STEPS; d++) {
          let queries = subgroupMatrixLoad<Right, col_major>(
              &head_tile, j * MATRIX_N * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
          products = subgroupMatrixMultiplyAccumulate(keys[d], queries, products);
        }
        subgroupMatrixStore<col_major>(
            &sums, 2u * (subgroup % SUBGROUPS) * SUBGROUP_SUMS + j * MATRIX_N * SUMS_STRIDE, products, SUMS_STRIDE);
        if (WANT_KEYS) {
          var d_weights = Sums();
          for (var d = 0u; d < VALUE_STEPS; d++) {
            let d_outputs = subgroupMatrixLoad<Right, col_major>(
                &value_tile, j * MATRIX_N * VALUE_STRIDE + d * (MATRIX_K / 4u), VALUE_STRIDE);
            d_weights = subgroupMatrixMultiplyAccumulate(values[d], d_outputs, d_weights);
          }
          subgroupMatrixStore<col_major>(
              &sums, (2u * (subgroup % SUBGROUPS) + 1u) * SUBGROUP_SUMS + j * MATRIX_N * SUMS_STRIDE, d_weights, SUMS_STRIDE);
        }
      }
      workgroupBarrier();

      if (is_partial(ids, query_0, key_0)) {
        write_pairs(ids, query_0, strip, scale, d_scale, weight_scale, gradient_scale, true);
      } else {
        write_pairs(ids, query_0, strip, scale, d_scale, weight_scale, gradient_scale, false);
      }
      workgroupBarrier();

      for (var j = 0u; j < BLOCK_QUERIES / MATRIX_K; j++) {
        let at = 2u * (subgroup % SUBGROUPS) * SUBGROUP_SUMS + j * MATRIX_K * SUMS_STRIDE;
        if (WANT_VALUES) {
          let left = subgroupMatrixLoad<Left, col_major>(&sums, at, SUMS_STRIDE);
          for (var o = 0u; o < VALUE_COLUMNS; o++) {
            let d_outputs = subgroupMatrixLoad<Right, row_major>(
                &value_tile, j * MATRIX_K * VALUE_STRIDE + o * (MATRIX_N / 4u), VALUE_STRIDE);
            d_values[o] = subgroupMatrixMultiplyAccumulate(left, d_outputs, d_values[o]);
          }
        }
        if (WANT_KEYS) {
          let left = subgroupMatrixLoad<Left, col_major>(&sums, at + KEY_VEC4 / 2u, SUMS_STRIDE);
          for (var o = 0u; o < HEAD_COLUMNS; o++) {
            let queries = subgroupMatrixLoad<Right, row_major>(
                &head_tile, j * MATRIX_K * HEAD_STRIDE + o * (MATRIX_N / 4u), HEAD_STRIDE);
            d_keys[o] = subgroupMatrixMultiplyAccumulate(left, queries, d_keys[o]);
          }
        }
      }
      query_0 = next;
      if (FETCHES_EARLY) {
        fetched_queries = fetch_queries(ids, min(query_0, ids.queries));
        fetched_d_outputs = fetch_d_outputs(ids, min(query_0, ids.queries));
      }
    }
  }

  if (WANT_KEYS) {
    let unscale = params.scale * power_of_two(half_exponent(largest[Q])) * power_of_two(-gradient_exponent());
    for (var o = 0u; o < HEAD_COLUMNS; o++) {
      store_block(d_keys[o]);
      for (var n = 0u; n < BLOCK_TRIPS; n++) {
        let key = strip + block_vec4(n) / (MATRIX_N / 4u);
        let d4 = o * (MATRIX_N / 4u) + block_vec4(n) % (MATRIX_N / 4u);
        if (key < of_keys.key_rows && d4 < HEAD_VEC4) {
          store_result_0(key_at(params.k, of_keys, key), d4, HEAD_SIZE, block_value(n) * unscale);
        }
      }
    }
  }
  if (WANT_VALUES) {
    var unscale = power_of_two(half_exponent(largest[D_OUTPUT])) * power_of_two(-WEIGHT_EXPONENT);
    if (DROPOUT) {
      unscale *= params.kept_scale;
    }
    for (var o = 0u; o < VALUE_COLUMNS; o++) {
      store_block(d_values[o]);
      for (var n = 0u; n < BLOCK_TRIPS; n++) {
        let key = strip + block_vec4(n) / (MATRIX_N / 4u);
        let d4 = o * (MATRIX_N / 4u) + block_vec4(n) % (MATRIX_N / 4u);
        if (key < of_keys.key_rows && d4 < VALUE_VEC4) {
          store_result_1(key_at(params.v, of_keys, key), d4, VALUE_SIZE, block_value(n) * unscale);
        }
      }
    }
  }
}
