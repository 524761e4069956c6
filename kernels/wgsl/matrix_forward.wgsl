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
const SAMPLE_ROUNDS = (SAMPLE_TILES + STRIP_SUBGROUPS - 1u) / STRIP_SUBGROUPS; // each subgroup of a strip makes one
// A row's sum above which row_max rises at the end of a segment, and what the sum is then: low enough for scores that go on
// growing, high enough that what f16 loses of all weights does not count.
const RENEWED_ABOVE = 4096.0;
const RENEWED_BITS = 6.0;

// The first key of a tile of the sample: the first keys, then those on the diagonal, as far as there are rows.
fn sample_key(job: Job, r: u32, tile: u32) -> u32 {
  let t = min(tile, SAMPLE_TILES - 1u);
  if (t == 0u) {
    return job.begin;
  }
  let rows = half_rows(params.keys, params.key_total) - select(0u, job.ids.key_first, END_TO_END);
  let diagonal = i32(params.query_first + strip_of(job) + MATRIX_M * r) + job.ids.diagonal - i32(params.key_first);
  return u32(clamp(diagonal + i32((t - 1u) * MATRIX_N), 0, i32(rows - MATRIX_N)));
}

// What this lane stages of the sample's keys, for each strip the tile t.
fn fetch_sample(job: Job, t: u32) -> Staged {
  var staged: Staged;
  for (var p = 0u; p < PASSES; p++) {
    for (var r = 0u; r < STRIPS; r++) {
      let first = half_key_row(job.ids, sample_key(job, r, t)) * HEAD_VEC8 + p * STAGED_VEC8;
      for (var n = 0u; n < STAGED_TRIPS; n++) {
        staged[(p * STRIPS + r) * STAGED_TRIPS + n] = half_k[first + staged_place(n).x * HEAD_VEC8 + staged_place(n).y];
      }
    }
  }
  return staged;
}

// The weights of this lane in strip r, from the products in `sums`: by one fma and one exp2 where nothing is added to them.
fn weights_at(ids: HeadIds, query: u32, key_0: u32, scale: f32, row_max: f32, partial: bool, r: u32) -> Scores {
  if (SOFTCAP || ALIBI || BIAS) {
    var scores = scores_of(ids, query, key_0, scale, partial, r);
    return weights_of(&scores, row_max);
  }
  var row_weights = products_of(r);
  for (var n = 0u; n < ROW_VEC4; n++) {
    row_weights[n] = exp2(fma(row_weights[n], vec4f(scale * LOG2_E), vec4f(-row_max)));
  }
  if (partial) {
    for (var n = 0u; n < ROW_VEC4; n++) {
      row_weights[n] = select(vec4f(), row_weights[n], sees_four(ids, query, key_0 + lane_key(n)));
    }
  }
  return row_weights;
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
    for (var r = 0u; r < STRIPS; r++) {
      store_nothing_seen(ids, query_of(job, r), job.split);
    }
    return;
  }
  if (thread == 0u) {
    too_large.x = 0u;
  }
  let part = subgroup % STRIP_SUBGROUPS;
  let own_sums = subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS * STRIP_SUMS + part * AREA_VEC4; // where its areas begin
  var queries: array<Left, STRIPS * HEAD_STEPS>;
  var staged_queries = fetch_staged_queries(job);
  for (var p = 0u; p < PASSES; p++) {
    stage(&staged_queries, p, MATRIX_M);
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      for (var d = 0u; d < STAGED_STEPS; d++) {
        queries[r * HEAD_STEPS + p * STAGED_STEPS + d] = subgroupMatrixLoad<Left, row_major>(
            &sums, own_sums + r * STRIP_SUMS + d * (MATRIX_K / 8u), SUMS_STRIDE);
      }
    }
    workgroupBarrier();
  }
  var accumulator: array<Sums, STRIPS * PART_COLUMNS>;
  for (var r = 0u; r < STRIPS; r++) {
    for (var o = 0u; o < PART_COLUMNS; o++) {
      accumulator[r * PART_COLUMNS + o] = Sums();
    }
  }
  var rows: array<Row, STRIPS>;
  for (var r = 0u; r < STRIPS; r++) {
    rows[r] = first_row(job);
  }
  for (var t = 0u; job.begin < job.end && t < SAMPLE_ROUNDS; t++) {
    var samples: array<Sums, STRIPS>;
    for (var r = 0u; r < STRIPS; r++) {
      samples[r] = Sums();
    }
    var staged_keys = fetch_sample(job, STRIP_SUBGROUPS * t + part);
    for (var p = 0u; p < PASSES; p++) {
      stage(&staged_keys, p, MATRIX_N);
      workgroupBarrier();
      for (var r = 0u; r < STRIPS; r++) {
        for (var d = 0u; d < STAGED_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &sums, own_sums + r * STRIP_SUMS + d * (MATRIX_K / 8u), SUMS_STRIDE);
          samples[r] = subgroupMatrixMultiplyAccumulate(
              queries[r * HEAD_STEPS + p * STAGED_STEPS + d], keys, samples[r]);
        }
      }
      workgroupBarrier();
    }
    for (var r = 0u; r < STRIPS; r++) {
      subgroupMatrixStore<row_major>(&sums, own_sums + r * STRIP_SUMS, samples[r], SUMS_STRIDE);
    }
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      var largest_score = NO_MAXIMUM;
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        let product = sums_vec4(sums_at(r) + lane_vec4(n));
        let key = sample_key(job, r, STRIP_SUBGROUPS * t + lane_area()) + 4u * lane_vec4(n);
        largest_score = max(largest_score, largest_of(score_of(product, ids, query_of(job, r), key, job.scale, true)));
      }
      largest_score = max(rows[r].max, row_maximum(largest_score));
      rows[r] = Row(largest_score, rows[r].sum * exp2(rows[r].max - largest_score));
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
      var fetched_values = fetch_values(ids, key_0);
      fetched_keys = fetch_keys(ids, select(key_0, next, next < job.end));
      for (var j = 0u; j < BLOCK_KEYS / MATRIX_N / STRIP_SUBGROUPS; j++) {
        let row_of_tile = part * (BLOCK_KEYS / STRIP_SUBGROUPS) + j * MATRIX_N;
        var products: array<Sums, STRIPS>;
        for (var r = 0u; r < STRIPS; r++) {
          products[r] = Sums();
        }
        for (var d = 0u; d < HEAD_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &head_tile, row_of_tile * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
          for (var r = 0u; r < STRIPS; r++) {
            products[r] = subgroupMatrixMultiplyAccumulate(queries[r * HEAD_STEPS + d], keys, products[r]);
          }
        }
        for (var r = 0u; r < STRIPS; r++) {
          subgroupMatrixStore<row_major>(
              &sums, own_sums + r * STRIP_SUMS + j * (MATRIX_N / 4u), products[r], SUMS_STRIDE);
        }
      }
      workgroupBarrier();

      for (var r = 0u; r < STRIPS; r++) {
        var row_weights = weights_at(ids, query_of(job, r), key_0, job.scale, rows[r].max, partial, r);
        rows[r].sum += write_weights(&row_weights, ids, query_of(job, r), key_0, r);
      }
      store_value_tile(&fetched_values);
      store_head_tile(&fetched_keys);
      workgroupBarrier();

      for (var j = 0u; j < BLOCK_KEYS / MATRIX_K; j++) {
        var left: array<Left, STRIPS>;
        for (var r = 0u; r < STRIPS; r++) {
          left[r] = subgroupMatrixLoad<Left, row_major>(
              &weights,
              (subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * MATRIX_M * WEIGHTS_STRIDE + j * (MATRIX_K / 4u),
              WEIGHTS_STRIDE);
        }
        for (var o = 0u; o < PART_COLUMNS; o++) {
          let values = subgroupMatrixLoad<Right, row_major>(
              &value_tile, j * MATRIX_K * VALUE_STRIDE + (part * PART_COLUMNS + o) * (MATRIX_N / 4u), VALUE_STRIDE);
          for (var r = 0u; r < STRIPS; r++) {
            accumulator[r * PART_COLUMNS + o] =
                subgroupMatrixMultiplyAccumulate(left[r], values, accumulator[r * PART_COLUMNS + o]);
          }
        }
      }
      key_0 = next;
    }

    if (key_0 < job.end) {
      for (var r = 0u; r < STRIPS; r++) {
        if (!(row_total(rows[r].sum) <= RENEWED_ABOVE)) {
          too_large.x = 1u;
        }
      }
      if (workgroupUniformLoad(&too_large).x != 0u) {
        if (thread == 0u) {
          too_large.x = 0u;
        }
        for (var r = 0u; r < STRIPS; r++) {
          let total = row_total(rows[r].sum);
          let new_max = rows[r].max + select(0.0, ceil(log2(total)) - RENEWED_BITS, total > RENEWED_ABOVE);
          let rescale = exp2(rows[r].max - new_max);
          // NaN from here on where weights did not fit.
          rows[r] = Row(new_max, select(not_a_number(), rows[r].sum * rescale, rows[r].sum <= LARGEST_SUM));
          for (var o = 0u; o < PART_COLUMNS; o++) {
            workgroupBarrier();
            accumulator[r * PART_COLUMNS + o] = scaled_rows(accumulator[r * PART_COLUMNS + o], rescale, r);
          }
        }
        workgroupBarrier();
      }
    }
  }

  var totals: array<f32, STRIPS>;
  var finite: array<bool, STRIPS>;
  for (var r = 0u; r < STRIPS; r++) {
    totals[r] = row_total(select(not_a_number(), rows[r].sum, rows[r].sum <= LARGEST_SUM));
    finite[r] = true;
  }
  for (var o = 0u; o < PART_COLUMNS; o++) {
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      subgroupMatrixStore<row_major>(
          &sums, own_sums + r * STRIP_SUMS, accumulator[r * PART_COLUMNS + o], SUMS_STRIDE);
    }
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      finite[r] = write_column(job, r, o, totals[r]) && finite[r];
    }
  }
  for (var r = 0u; r < STRIPS; r++) {
    store_lse(job, r, rows[r].max, row_total(select(not_a_number(), 0.0, finite[r])) + totals[r]);
  }
}
