// Forward pass on subgroup matrices: forward.wgsl's results from f16 operands and f32 sums.
//
// No maximum is followed from tile to tile: weights are exp2(score − row_max), and row_max, in units of log 2, begins as the
// largest score of a sample, the first keys and those on the diagonal. f16 holds weights of keys that outweigh the sample by
// up to e^10.4. Every SEGMENT_KEYS keys the sums tell whether row_max should rise. Rows whose weights did not fit, or whose
// results are not finite, get an LSE of NaN, and matrix_watched.wgsl makes their tiles again. It runs alone where masks or
// biases may hide the sample. To watch every tile takes 2% to 15% of the time, and to hold that second attempt in this kernel
// a third, even where it is never made: registers (H100, NOTES.md).

var<workgroup> too_large: vec4u; // x: some row's sum

const SEGMENT_KEYS = 256u;
const SAMPLE_TILES = 1u + MATRIX_M / MATRIX_N;
// A row's sum above which row_max rises at the end of a segment, and what the sum is then: low enough for scores that go on
// growing, high enough that what f16 loses of all weights does not count.
const RENEWED_ABOVE = 4096.0;
const RENEWED_BITS = 6.0;

// The first key of a tile of the sample: the first keys, then those on the diagonal, as far as there are rows.
fn sample_key(job: Job, t: u32) -> u32 {
  if (t == 0u) {
    return job.begin;
  }
  let rows = half_rows(params.keys, params.key_total) - select(0u, job.ids.key_first, END_TO_END);
  let diagonal = i32(params.query_first + strip_of(job)) + job.ids.diagonal - i32(params.key_first);
  return u32(clamp(diagonal + i32((t - 1u) * MATRIX_N), 0, i32(rows - MATRIX_N)));
}

fn stage_sample(job: Job, t: u32, p: u32) {
  let from_vec8 = half_key_row(job.ids, sample_key(job, t)) * HEAD_VEC8 + p * STAGED_VEC8;
  for (var n = 0u; n < STAGED_TRIPS; n++) {
    let place = staged_place(n);
    if (place.x < MATRIX_N) {
      sums[(subgroup % SUBGROUPS * MATRIX_M + place.x) * SUMS_STRIDE + place.y] =
          half_k[from_vec8 + place.x * HEAD_VEC8 + place.y];
    }
  }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  start_thread(index);
  let job = job_of(group_id.x + group_id.y * groups.x);
  let ids = job.ids;
  if (!job.exists) {
    return;
  }
  let query = query_of(job);
  if (SPLIT && job.split > 0u && job.begin >= job.end) {
    store_nothing_seen(ids, query, job.split);
    return;
  }
  if (thread == 0u) {
    too_large.x = 0u;
  }
  var queries: array<Left, HEAD_STEPS>;
  for (var p = 0u; p < PASSES; p++) {
    stage_queries(job, p);
    workgroupBarrier();
    for (var d = 0u; d < STAGED_STEPS; d++) {
      queries[p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
          &sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE + d * (MATRIX_K / 8u), SUMS_STRIDE);
    }
    workgroupBarrier();
  }
  var accumulator: array<Sums, VALUE_COLUMNS>;
  for (var o = 0u; o < VALUE_COLUMNS; o++) {
    accumulator[o] = Sums();
  }
  var row = first_row(job);
  for (var t = 0u; job.begin < job.end && t < SAMPLE_TILES; t++) {
    var products = Sums();
    for (var p = 0u; p < PASSES; p++) {
      stage_sample(job, t, p);
      workgroupBarrier();
      for (var d = 0u; d < STAGED_STEPS; d++) {
        let keys = subgroupMatrixLoad<Right, col_major>(
            &sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE + d * (MATRIX_K / 8u), SUMS_STRIDE);
        products = subgroupMatrixMultiplyAccumulate(queries[p * STAGED_STEPS + d], keys, products);
      }
      workgroupBarrier();
    }
    subgroupMatrixStore<row_major>(&sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE, products, SUMS_STRIDE);
    workgroupBarrier();
    var largest_score = NO_MAXIMUM;
    for (var n = 0u; n < COLUMN_VEC4; n++) {
      let product = sums_vec4(sums_at() + lane_vec4(n));
      let key = sample_key(job, t) + 4u * lane_vec4(n);
      largest_score = max(largest_score, largest_of(score_of(product, ids, query, key, job.scale, true)));
    }
    largest_score = max(row.max, row_maximum(largest_score));
    row = Row(largest_score, row.sum * exp2(row.max - largest_score));
    workgroupBarrier();
  }

  var key_0 = job.begin;
  var fetched_keys = fetch_keys(ids, min(key_0, ids.keys));
  store_head_tile(&fetched_keys);
  workgroupBarrier();
  while (key_0 < job.end) {
    let stop = min(job.end, key_0 + SEGMENT_KEYS);
    while (key_0 < stop) {
      let next = key_0 + BLOCK_KEYS;
      let partial = is_partial(ids, job.query_0, key_0);
      for (var j = 0u; j < BLOCK_KEYS / MATRIX_N; j++) {
        var products = Sums();
        for (var d = 0u; d < HEAD_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &head_tile, j * MATRIX_N * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
          products = subgroupMatrixMultiplyAccumulate(queries[d], keys, products);
        }
        subgroupMatrixStore<row_major>(
            &sums, subgroup % SUBGROUPS * MATRIX_M * SUMS_STRIDE + j * (MATRIX_N / 4u), products, SUMS_STRIDE);
      }
      workgroupBarrier();

      var fetched_values = fetch_values(ids, key_0);
      fetched_keys = fetch_keys(ids, select(key_0, next, next < job.end));
      var scores = scores_of(ids, query, key_0, job.scale, partial);
      row.sum += write_weights(&scores, row.max, ids, query, key_0);
      store_value_tile(&fetched_values);
      store_head_tile(&fetched_keys);
      workgroupBarrier();

      for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
        let left = subgroupMatrixLoad<Left, row_major>(
            &weights, subgroup % SUBGROUPS * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u), WEIGHTS_STRIDE);
        for (var o = 0u; o < VALUE_COLUMNS; o++) {
          let values = subgroupMatrixLoad<Right, row_major>(
              &value_tile, j * MATRIX_K * VALUE_STRIDE + o * (MATRIX_N / 4u), VALUE_STRIDE);
          accumulator[o] = subgroupMatrixMultiplyAccumulate(left, values, accumulator[o]);
        }
      }
      key_0 = next;
    }

    if (key_0 < job.end) {
      let total = row_total(row.sum);
      if (!(total <= RENEWED_ABOVE)) {
        too_large.x = 1u;
      }
      if (workgroupUniformLoad(&too_large).x != 0u) {
        if (thread == 0u) {
          too_large.x = 0u;
        }
        let new_max = row.max + select(0.0, ceil(log2(total)) - RENEWED_BITS, total > RENEWED_ABOVE);
        let rescale = exp2(row.max - new_max);
        // NaN from here on where weights did not fit.
        row = Row(new_max, select(not_a_number(), row.sum * rescale, row.sum <= LARGEST_SUM));
        for (var o = 0u; o < VALUE_COLUMNS; o++) {
          workgroupBarrier();
          accumulator[o] = scaled_rows(accumulator[o], rescale);
        }
        workgroupBarrier();
      }
    }
  }

  let total = row_total(select(not_a_number(), row.sum, row.sum <= LARGEST_SUM));
  var finite = true;
  for (var o = 0u; o < VALUE_COLUMNS; o++) {
    finite = store_column(accumulator[o], job, o, total) && finite;
  }
  store_lse(job, row.max, row_total(select(not_a_number(), 0.0, finite)) + total);
}
