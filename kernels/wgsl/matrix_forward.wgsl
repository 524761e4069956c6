// Forward pass on subgroup matrices: forward.wgsl's results from f16 operands and f32 sums. What a subgroup reads of K and V
// serves all its strips.
//
// No maximum is followed from tile to tile: weights are exp2(score − row_max), and row_max, in units of log 2, begins as the
// largest score of a sample, the first keys and those on the diagonal. f16 holds weights of keys that outweigh the sample by
// up to e^10.4. Every SEGMENT_KEYS keys the sums tell whether row_max should rise. Rows whose weights did not fit, or whose
// results are not finite, get an LSE of NaN, and matrix_watched.wgsl makes their tiles again. It runs alone where masks or
// biases may hide the sample. To watch every tile takes a third of the time, and as much where this kernel only might:
// registers for a second attempt (H100, NOTES.md).

var<workgroup> too_large: vec4u; // x: some row's sum

const SEGMENT_KEYS = 256u;
const SAMPLE_TILES = 1u + MATRIX_M / MATRIX_N;
// A row's sum above which row_max rises at the end of a segment, and what the sum is then: low enough for scores that go on
// growing, high enough that what f16 loses of all weights does not count.
const RENEWED_ABOVE = 4096.0;
const RENEWED_BITS = 6.0;

// The first key of a tile of the sample: the first keys, then those on the diagonal, as far as there are rows.
fn sample_key(job: Job, s: u32, t: u32) -> u32 {
  if (t == 0u) {
    return job.begin;
  }
  let rows = half_rows(params.keys, params.key_total) - select(0u, job.ids.key_first, END_TO_END);
  let diagonal = i32(params.query_first + strip_of(job, s)) + job.ids.diagonal - i32(params.key_first);
  return u32(clamp(diagonal + i32((t - 1u) * MATRIX_N), 0, i32(rows - MATRIX_N)));
}

fn stage_sample(job: Job, s: u32, t: u32, p: u32) {
  let from_vec8 = half_key_row(job.ids, sample_key(job, s, t)) * HEAD_VEC8 + p * STAGED_VEC8;
  for (var n = 0u; n < STAGED_TRIPS; n++) {
    let place = staged_place(n);
    if (place.x < MATRIX_N) {
      sums[((STRIPS * (subgroup % SUBGROUPS) + s % STRIPS) * MATRIX_M + place.x) * SUMS_STRIDE + place.y] =
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
  if (SPLIT && job.split > 0u && job.begin >= job.end) {
    for (var s = 0u; s < STRIPS; s++) {
      store_nothing_seen(ids, query_of(job, s), job.split);
    }
    return;
  }
  if (thread == 0u) {
    too_large.x = 0u;
  }
  var queries: array<Left, STRIPS * HEAD_STEPS>;
  var accumulator: array<Sums, STRIPS * VALUE_COLUMNS>;
  var rows: array<Row, STRIPS>;
  for (var p = 0u; p < HEAD_STEPS / STAGED_STEPS; p++) {
    for (var s = 0u; s < STRIPS; s++) {
      stage_queries(job, s, p);
    }
    workgroupBarrier();
    for (var s = 0u; s < STRIPS; s++) {
      for (var d = 0u; d < STAGED_STEPS; d++) {
        queries[s * HEAD_STEPS + p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
            &sums, (STRIPS * (subgroup % SUBGROUPS) + s) * MATRIX_M * SUMS_STRIDE + d * (MATRIX_K / 8u), SUMS_STRIDE);
      }
    }
    workgroupBarrier();
  }
  for (var s = 0u; s < STRIPS; s++) {
    for (var o = 0u; o < VALUE_COLUMNS; o++) {
      accumulator[s * VALUE_COLUMNS + o] = Sums();
    }
    rows[s] = first_row(job);
  }
  for (var t = 0u; job.begin < job.end && t < SAMPLE_TILES; t++) {
    var products: array<Sums, STRIPS>;
    for (var s = 0u; s < STRIPS; s++) {
      products[s] = Sums();
    }
    for (var p = 0u; p < HEAD_STEPS / STAGED_STEPS; p++) {
      for (var s = 0u; s < STRIPS; s++) {
        stage_sample(job, s, t, p);
      }
      workgroupBarrier();
      for (var s = 0u; s < STRIPS; s++) {
        for (var d = 0u; d < STAGED_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &sums, (STRIPS * (subgroup % SUBGROUPS) + s) * MATRIX_M * SUMS_STRIDE + d * (MATRIX_K / 8u), SUMS_STRIDE);
          products[s] = subgroupMatrixMultiplyAccumulate(
              queries[s * HEAD_STEPS + p * STAGED_STEPS + d], keys, products[s]);
        }
      }
      workgroupBarrier();
    }
    for (var s = 0u; s < STRIPS; s++) {
      subgroupMatrixStore<row_major>(
          &sums, (STRIPS * (subgroup % SUBGROUPS) + s) * MATRIX_M * SUMS_STRIDE, products[s], SUMS_STRIDE);
    }
    workgroupBarrier();
    for (var s = 0u; s < STRIPS; s++) {
      var largest_score = NO_MAXIMUM;
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        let product = sums_vec4(sums_at(s) + lane_vec4(n));
        let key = sample_key(job, s, t) + 4u * lane_vec4(n);
        largest_score = max(largest_score, largest_of(score_of(product, ids, query_of(job, s), key, job.scale, true)));
      }
      largest_score = max(rows[s].max, row_maximum(largest_score));
      rows[s] = Row(largest_score, rows[s].sum * exp2(rows[s].max - largest_score));
    }
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
        var products: array<Sums, STRIPS>;
        for (var s = 0u; s < STRIPS; s++) {
          products[s] = Sums();
        }
        for (var d = 0u; d < HEAD_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &head_tile, j * MATRIX_N * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
          for (var s = 0u; s < STRIPS; s++) {
            products[s] = subgroupMatrixMultiplyAccumulate(queries[s * HEAD_STEPS + d], keys, products[s]);
          }
        }
        for (var s = 0u; s < STRIPS; s++) {
          subgroupMatrixStore<row_major>(&sums, (STRIPS * (subgroup % SUBGROUPS) + s) * MATRIX_M * SUMS_STRIDE + j * (MATRIX_N / 4u), products[s],
              SUMS_STRIDE);
        }
      }
      workgroupBarrier();

      var fetched_values = fetch_values(ids, key_0);
      fetched_keys = fetch_keys(ids, select(key_0, next, next < job.end));
      for (var s = 0u; s < STRIPS; s++) {
        var scores = scores_of(s, ids, query_of(job, s), key_0, job.scale, partial);
        rows[s].sum += write_weights(&scores, s, rows[s].max, ids, query_of(job, s), key_0);
      }
      store_value_tile(&fetched_values);
      store_head_tile(&fetched_keys);
      workgroupBarrier();

      for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
        var left: array<Left, STRIPS>;
        for (var s = 0u; s < STRIPS; s++) {
          left[s] = subgroupMatrixLoad<Left, row_major>(
              &weights, (STRIPS * (subgroup % SUBGROUPS) + s) * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u), WEIGHTS_STRIDE);
        }
        for (var o = 0u; o < VALUE_COLUMNS; o++) {
          let values = subgroupMatrixLoad<Right, row_major>(
              &value_tile, j * MATRIX_K * VALUE_STRIDE + o * (MATRIX_N / 4u), VALUE_STRIDE);
          for (var s = 0u; s < STRIPS; s++) {
            accumulator[s * VALUE_COLUMNS + o] =
                subgroupMatrixMultiplyAccumulate(left[s], values, accumulator[s * VALUE_COLUMNS + o]);
          }
        }
      }
      key_0 = next;
    }

    if (key_0 < job.end) {
      for (var s = 0u; s < STRIPS; s++) {
        if (!(row_total(rows[s].sum) <= RENEWED_ABOVE)) {
          too_large.x = 1u;
        }
      }
      if (workgroupUniformLoad(&too_large).x != 0u) {
        if (thread == 0u) {
          too_large.x = 0u;
        }
        for (var s = 0u; s < STRIPS; s++) {
          let total = row_total(rows[s].sum);
          let new_max = rows[s].max + select(0.0, ceil(log2(total)) - RENEWED_BITS, total > RENEWED_ABOVE);
          let rescale = exp2(rows[s].max - new_max);
          // NaN from here on where weights did not fit.
          rows[s] = Row(new_max, select(not_a_number(), rows[s].sum * rescale, rows[s].sum <= LARGEST_SUM));
          for (var o = 0u; o < VALUE_COLUMNS; o++) {
            workgroupBarrier();
            accumulator[s * VALUE_COLUMNS + o] = scaled_rows(accumulator[s * VALUE_COLUMNS + o], s, rescale);
          }
        }
        workgroupBarrier();
      }
    }
  }

  for (var s = 0u; s < STRIPS; s++) {
    let total = row_total(select(not_a_number(), rows[s].sum, rows[s].sum <= LARGEST_SUM));
    var finite = true;
    for (var o = 0u; o < VALUE_COLUMNS; o++) {
      finite = store_column(accumulator[s * VALUE_COLUMNS + o], job, s, o, total) && finite;
    }
    store_lse(job, s, rows[s].max, row_total(select(not_a_number(), 0.0, finite)) + total);
  }
}
