// The forward kernel on subgroup matrices that makes what matrix_forward.wgsl could not: tiles of which a row has an LSE of
// NaN, and all of them where f16 does not hold q, k or v as they are. It takes anything. Every tile is watched: row_max is
// what it was last until a lane's sum of the weights of one tile nears what f16 holds; then the workgroup takes new maxima
// and rescales. A tile with values that are not finite is multiplied pair by pair, so that they reach only what sees them.
//
// Operands come from the tensors themselves: so a call whose copies f16 holds, as it holds most, needs no second pass of
// to_half.
//
// Subgroups have one strip here (STRIPS).

@group(0) @binding(16) var<storage, read> largest: array<vec4u>; // words: half.wgsl

// What a tile has that some thread saw.
struct Seen {
  too_large: u32,  // weights
  not_finite: u32, // values
  padding: vec2u,
}

var<workgroup> seen: Seen;
var<workgroup> row_is_missing: vec4u; // x; y: all of them are
var<workgroup> operand_largest: array<atomic<u32>, 4>; // of Q, K, V

var<private> exponents: array<i32, 3>; // of Q, K, V

fn operand_exponent(tensor: u32) -> i32 {
  return exponents[tensor];
}

// Whether matrix_forward left a row of this job to do. The same for the whole workgroup.
fn is_left(job: Job) -> bool {
  if (thread == 0u) {
    row_is_missing.x = 0u;
  }
  workgroupBarrier();
  for (var n = thread; n < BLOCK_QUERIES; n += THREADS) {
    note_row(job, job.query_0 + n);
  }
  return workgroupUniformLoad(&row_is_missing).x != 0u;
}

// The same of every `step`-th job from `first` on, without a barrier for each: x, whether a row of them is missing; y, whether
// all rows of all jobs are. Finds the operands' exponents.
fn what_is_left(first: u32, step: u32, all: u32) -> vec4u {
  if (thread == 0u) {
    row_is_missing = vec4u();
    for (var tensor = 0u; tensor < 3u; tensor++) {
      atomicStore(&operand_largest[tensor], 0u);
    }
  }
  workgroupBarrier();
  let workgroups = min(forward_groups(), TURNING_WORKGROUPS);
  var most: array<vec4u, 3>;
  for (var n = 4u * thread; n < workgroups; n += 4u * THREADS) {
    for (var tensor = 0u; tensor < 3u; tensor++) {
      let words = largest[largest_place(tensor, n) / 4u];
      most[tensor] = max(most[tensor], select(words, vec4u(), vec4u(n) + vec4u(0u, 1u, 2u, 3u) >= vec4u(workgroups)));
    }
  }
  for (var tensor = 0u; tensor < 3u; tensor++) {
    let pair = max(most[tensor].xy, most[tensor].zw);
    let of_subgroup = subgroupMax(max(pair.x, pair.y));
    if (lane == 0u) {
      atomicMax(&operand_largest[tensor], of_subgroup);
    }
  }
  for (var n = thread; first + n / BLOCK_QUERIES * step < all; n += THREADS) {
    let job = job_of(first + n / BLOCK_QUERIES * step);
    if (job.exists) {
      note_row(job, job.query_0 + n % BLOCK_QUERIES);
    }
  }
  workgroupBarrier();
  for (var tensor = 0u; tensor < 3u; tensor++) {
    exponents[tensor] = half_exponent(atomicLoad(&operand_largest[tensor]));
  }
  if (thread == 0u && (exponents[Q] != 0 || exponents[K] != 0 || exponents[V] != 0)) {
    row_is_missing.y = 1u;
  }
  return workgroupUniformLoad(&row_is_missing);
}

fn note_row(job: Job, query: u32) {
  if (query < job.ids.query_rows) {
    let row = query_at(params.rows, job.ids, query) + job.split * params.split_rows;
    if ((bitcast<u32>(lse[row]) & 0x7fffffffu) > 0x7f800000u) {
      row_is_missing.x = 1u;
    }
  }
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
  if (thread == 0u) {
    seen = Seen();
  }
  var queries: array<Left, HEAD_STEPS>;
  var staged = fetch_queries(ids, strip_of(job));
  for (var p = 0u; p < PASSES; p++) {
    workgroupBarrier();
    stage(&staged, p, MATRIX_M);
    workgroupBarrier();
    for (var d = 0u; d < STAGED_STEPS; d++) {
      queries[p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
          &sums, own_sums + d * (MATRIX_K / 8u), SUMS_STRIDE);
    }
  }
  var accumulator: array<Sums, PART_COLUMNS>;
  for (var o = 0u; o < PART_COLUMNS; o++) {
    accumulator[o] = Sums();
  }
  var row = first_row(job);
  var tile = next_seen(ids, job.query_0, job.begin, job.end);
  var fetched_keys = fetch_keys(ids, min(tile.begin, ids.keys));
  workgroupBarrier();
  store_head_tile(&fetched_keys);
  var fresh = true; // nothing has been accumulated yet
  workgroupBarrier();
  for (var t = 0u; t < FOREVER; t++) {
    let key_0 = tile.begin;
    if (key_0 >= job.end) {
      break;
    }
    let next = next_seen(ids, job.query_0, key_0 + BLOCK_KEYS, job.end);
    let partial = is_partial(ids, job.query_0, key_0, tile.hides);
    let part = subgroup % STRIP_SUBGROUPS;
    var fetched_values = fetch_values(ids, key_0);
    fetched_keys = fetch_keys(ids, select(key_0, next.begin, next.begin < job.end));
    for (var j = 0u; j < BLOCK_KEYS / MATRIX_N / STRIP_SUBGROUPS; j++) {
      let row_of_tile = part * (BLOCK_KEYS / STRIP_SUBGROUPS) + j * MATRIX_N;
      var products = Sums();
      for (var d = 0u; d < HEAD_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &head_tile, row_of_tile * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[d], keys, products);
      }
      subgroupMatrixStore<row_major>(
          &sums, own_sums + j * (MATRIX_N / 4u), products, SUMS_STRIDE);
    }
    workgroupBarrier();

    var scores = scores_of(ids, query, key_0, scale, partial, 0u);
    var row_weights = weights_of(&scores, row.max);
    var total = write_weights(&row_weights, ids, query, key_0, 0u);
    if (!(total <= LARGEST_SUM)) {
      seen.too_large = 1u;
    }
    if (!are_finite(&fetched_values)) {
      seen.not_finite = 1u;
    }
    store_value_tile(&fetched_values);
    store_head_tile(&fetched_keys);

    let noticed = workgroupUniformLoad(&seen);
    if (thread == 0u && (noticed.too_large | noticed.not_finite) != 0u) {
      seen = Seen();
    }
    if (noticed.too_large != 0u) {
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

    if (noticed.not_finite == 0u) {
      for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
        let left = subgroupMatrixLoad<Left, row_major>(
            &weights, subgroup % SUBGROUPS / STRIP_SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u),
            WEIGHTS_STRIDE);
        for (var o = 0u; o < PART_COLUMNS; o++) {
          let values = subgroupMatrixLoad<Right, row_major>(
              &value_tile, j * MATRIX_K * VALUE_STRIDE + (part * PART_COLUMNS + o) * (MATRIX_N / 4u), VALUE_STRIDE);
          accumulator[o] = subgroupMatrixMultiplyAccumulate(left, values, accumulator[o]);
        }
      }
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

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  start_thread(index);
  let workgroup = group_id.x + group_id.y * groups.x;
  let workgroups = groups.x * groups.y;
  let all = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES * params.heads * params.batches * params.splits;
  let left = what_is_left(workgroup, workgroups, all);
  if ((left.x | left.y) == 0u) {
    return;
  }
  for (var item = workgroup; item < all; item += workgroups) {
    let job = job_of(item);
    if (job.exists && (left.y != 0u || is_left(job))) {
      watch(job);
    }
  }
}
