// A job of the forward pass whatever its operands: what matrix_forward.wgsl could not make is made so again. Operands come from
// the tensors themselves, divided by powers of two where f16 does not hold them. Every tile is watched: row_max is what it was
// last until a lane's sum of the weights of one tile nears what f16 holds; then the workgroup takes new maxima and rescales.
// A tile with values that are not finite is multiplied pair by pair, so that they reach only what sees them.
//
// Subgroups have one strip here (STRIPS).

// What a tile has that some thread saw: x, weights that are too large; y, values that are not finite. A word in the padding of
// a row of `sums`, as RISES is.
const SEEN = 2u * SUMS_STRIDE - 1u;

@group(0) @binding(16) var<storage, read> largest: array<vec4u>; // words: half.wgsl

var<private> exponents: array<i32, 3>; // of Q, K, V

fn operand_exponent(tensor: u32) -> i32 {
  return exponents[tensor];
}

// What this thread finds in the notes of to_half's first pass: the largest elements of q, k and v, as bits; w is 0.
fn notes_of_thread() -> vec4u {
  let workgroups = min(forward_groups(), TURNING_WORKGROUPS);
  var most: array<vec4u, 3>;
  for (var n = 4u * thread; n < workgroups; n += 4u * THREADS) {
    for (var tensor = 0u; tensor < 3u; tensor++) {
      let words = largest[largest_place(tensor, n) / 4u];
      most[tensor] = max(most[tensor], select(words, vec4u(), vec4u(n) + vec4u(0u, 1u, 2u, 3u) >= vec4u(workgroups)));
    }
  }
  let pairs = array<vec2u, 3>(
      max(most[Q].xy, most[Q].zw), max(most[K].xy, most[K].zw), max(most[V].xy, most[V].zw));
  return vec4u(
      max(pairs[Q].x, pairs[Q].y), max(pairs[K].x, pairs[K].y), max(pairs[V].x, pairs[V].y), 0u);
}

// The largest of what each thread of the workgroup brings. By way of `sums`, which nobody may need any more.
fn largest_of_all(mine: vec4u) -> vec4u {
  let of_subgroup = subgroupMax(mine);
  workgroupBarrier();
  if (lane == 0u) {
    sums[subgroup % SUBGROUPS] = of_subgroup;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var all = of_subgroup;
    for (var other = 1u; other < SUBGROUPS; other++) {
      all = max(all, sums[other]);
    }
    sums[SUBGROUPS] = all;
  }
  return workgroupUniformLoad(&sums[SUBGROUPS]);
}

// Whether f16 does not hold an operand as it is.
fn divides(noted: vec4u) -> bool {
  return half_exponent(noted.x) != 0 || half_exponent(noted.y) != 0 || half_exponent(noted.z) != 0;
}

fn set_exponents(noted: vec4u) {
  exponents = array<i32, 3>(half_exponent(noted.x), half_exponent(noted.y), half_exponent(noted.z));
}

fn are_finite(fetched: ptr<function, ValueFetch>) -> bool {
  var finite = true;
  for (var n = 0u; n < VALUE_TRIPS; n++) {
    let low = (*fetched)[n] & vec4u(0x7c00u);
    let high = (*fetched)[n] & vec4u(0x7c000000u);
    finite = finite && all(low != vec4u(0x7c00u)) && all(high != vec4u(0x7c000000u));
  }
  return finite;
}

// A matrix of the accumulator, and added to it the weights of this tile times its values, for pairs that are seen. Between
// barriers.
fn add_seen_values(block: Sums, job: Job, o: u32, key_0: u32) -> Sums {
  let own_sums = subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIP_SUMS + subgroup % STRIP_SUBGROUPS * AREA_VEC4;
  subgroupMatrixStore<row_major>(&sums, own_sums, block, SUMS_STRIDE);
  workgroupBarrier();
  for (var n = 0u; n < COLUMN_VEC4; n++) {
    let at = sums_at(0u) + lane_vec4(n);
    var sum = sums_vec4(at);
    var key = 0u; // a loop that is not written out: it hardly ever runs
    while (key < BLOCK_KEYS) {
      if (sees(job.ids, query_of(job, 0u), key_0 + key)) {
        let weight = weights[(strip_place() * MATRIX_M + lane_row()) * WEIGHTS_STRIDE + key / 4u][key % 4u];
        sum += f32(weight) * vec4f(value_tile[key * VALUE_STRIDE + lane_column(o) * (MATRIX_N / 4u) + lane_vec4(n)]);
      }
      key++;
    }
    sums[at] = bitcast<vec4u>(sum);
  }
  workgroupBarrier();
  return subgroupMatrixLoad<Sums, row_major>(
      &sums, own_sums, SUMS_STRIDE);
}

fn watch(job: Job) {
  let ids = job.ids;
  let scale = product_scale();
  let query = query_of(job, 0u);
  let own_sums = subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIP_SUMS + subgroup % STRIP_SUBGROUPS * AREA_VEC4;
  if (SPLIT && job.split > 0u && job.begin >= job.end) {
    store_nothing_seen(ids, query, job.split);
    return;
  }
  var queries: array<Left, STRIPS * HEAD_STEPS>;
  var staged = turned_queries(ids, strip_of(job));
  for (var p = 0u; p < PASSES; p++) {
    workgroupBarrier();
    stage(&staged, p, MATRIX_M);
    workgroupBarrier();
    for (var d = 0u; d < STAGED_STEPS; d++) {
      queries[p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
          &sums, own_sums + d * (MATRIX_K / 8u), SUMS_STRIDE);
    }
  }
  var accumulator: array<Sums, STRIPS * PART_COLUMNS>;
  for (var o = 0u; o < PART_COLUMNS; o++) {
    accumulator[o] = Sums();
  }
  var row = first_row(job);
  var tile = next_seen(ids, job.query_0, job.begin, job.end);
  var fetched_keys = turned_keys(ids, min(tile.begin, ids.keys));
  workgroupBarrier();
  store_head_tile(&fetched_keys);
  if (thread == 0u) {
    sums[SEEN] = vec4u();
  }
  var fresh = true; // nothing has been accumulated yet
  workgroupBarrier();
  for (var t = 0u; t < FOREVER; t++) {
    let key_0 = tile.begin;
    if (key_0 >= job.end) {
      break;
    }
    let next = next_seen(ids, job.query_0, key_0 + BLOCK_KEYS, job.end);
    let partial = is_partial(ids, job.query_0, key_0, tile.hides);
    var fetched_values = turned_values(ids, key_0);
    fetched_keys = turned_keys(ids, select(key_0, next.begin, next.begin < job.end));
    for (var j = 0u; j < TILE_COLUMNS; j++) {
      var products = products_of_tile(&queries, j);
      subgroupMatrixStore<row_major>(&sums, own_sums + j * (MATRIX_N / 4u), products[0u], SUMS_STRIDE);
    }
    workgroupBarrier();

    var scores = scores_of(ids, query, key_0, scale, partial, 0u);
    var row_weights = weights_of(&scores, row.max);
    var total = write_weights(&row_weights, ids, query, key_0, 0u);
    if (!(total <= LARGEST_SUM)) {
      sums[SEEN].x = 1u;
    }
    if (!are_finite(&fetched_values)) {
      sums[SEEN].y = 1u;
    }
    store_value_tile(&fetched_values);
    store_head_tile(&fetched_keys);

    let noticed = workgroupUniformLoad(&sums[SEEN]);
    if (thread == 0u && (noticed.x | noticed.y) != 0u) {
      sums[SEEN] = vec4u();
    }
    if (noticed.x != 0u) {
      scores = scores_of(ids, query, key_0, scale, partial, 0u);
      var largest_score = row.max;
      for (var n = 0u; n < ROW_VEC4; n++) {
        largest_score = max(largest_score, largest_of(scores[n]));
      }
      largest_score = row_maximum(largest_score);
      let rescale = exp2(row.max - largest_score);
      row = Row(largest_score, row.sum * rescale);
      row_weights = weights_of(&scores, row.max);
      total = write_weights(&row_weights, ids, query, key_0, 0u);
      if (!fresh) {
        for (var o = 0u; o < PART_COLUMNS; o++) {
          workgroupBarrier();
          accumulator[o] = scaled_rows(accumulator[o], rescale, 0u);
        }
      }
      workgroupBarrier();
    }
    row.sum += total;
    fresh = false;

    if (noticed.y == 0u) {
      add_values(&accumulator);
    } else {
      for (var o = 0u; o < PART_COLUMNS; o++) {
        workgroupBarrier();
        accumulator[o] = add_seen_values(accumulator[o], job, o, key_0);
      }
      workgroupBarrier();
    }
    tile = next;
  }
  let total = row_total(row.sum);
  for (var o = 0u; o < PART_COLUMNS; o++) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&sums, own_sums, accumulator[o], SUMS_STRIDE);
    workgroupBarrier();
    write_column(job, 0u, o, total);
  }
  store_lse(job, 0u, row.max, total);
}
