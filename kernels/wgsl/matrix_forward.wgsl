// Forward pass on subgroup matrices: forward.wgsl's results from f16 operands and f32 sums.
//
// No maximum is followed from tile to tile: weights are exp2(score − row_max), and row_max, in units of log 2, begins as the
// largest score of a sample, the first keys and those on the diagonal. f16 holds weights of keys that outweigh the sample by
// up to e^10.4. Every SEGMENT_TILES tiles the sums tell whether row_max should rise. Rows whose weights did not fit, such as
// those of whose sample a mask or a bias hides all, or whose results are not finite, get an LSE of NaN, and
// matrix_watch.wgsl makes their tiles again: in another kernel (watched_later.wgsl) or, with few rows, at the end of this one
// (watched_here.wgsl). To watch every tile takes 2% to 15% of the time, and to hold the second attempt in a kernel of many rows
// a third, even where it is never made: registers (H100, NOTES.md).
//
// Three tiles are at work at once: between two barriers a subgroup makes the weights of one tile, the scores of the next and
// the sums of the one before, none of which waits for another. Each round looks at the mask of the tile whose keys it fetches.

const SEGMENT_TILES = 256u / BLOCK_KEYS;
// A row's sum above which row_max rises at the end of a segment, and what the sum is then: low enough for scores that go on
// growing, high enough that what f16 loses of all weights does not count.
const RENEWED_ABOVE = 4096.0;
const RENEWED_BITS = 6.0;
// Whether some row's has to: a word in the padding of a row of `sums`, which matrices leave alone (staged rows may not: it is
// cleared behind them). A variable of its own would keep one workgroup less on a multiprocessor, where 48 KB are all there is.
const RISES = SUMS_STRIDE - 1u;

// The first key of a tile of the sample on strip r's diagonal, as far as there are rows. Masks and biases are read in fours.
fn sample_key(job: Job, r: u32, tile: u32) -> u32 {
  let rows = half_rows(params.keys, params.key_total) - select(0u, job.ids.key_first, END_TO_END);
  let diagonal = i32(params.query_first + strip_of(job) + MATRIX_M * r) + job.ids.diagonal - i32(params.key_first);
  let key = u32(clamp(diagonal + i32(min(tile, SAMPLE_TILES - 1u) * MATRIX_N), 0, i32(rows - MATRIX_N)));
  return select(key, key / 4u * 4u, MASK || BIAS);
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

// The weights of this lane in strip r, from the products in `sums`, as if all keys were seen: by one fma and one exp2 where
// nothing is added to them.
fn weights_at(ids: HeadIds, query: u32, key_0: u32, scale: f32, row_max: f32, r: u32) -> Scores {
  if (SOFTCAP || ALIBI || BIAS) {
    var scores = scores_of(ids, query, key_0, scale, false, r);
    return weights_of(&scores, row_max);
  }
  var row_weights = products_of(r);
  for (var n = 0u; n < ROW_VEC4; n++) {
    row_weights[n] = exp2(fma(row_weights[n], vec4f(scale * LOG2_E), vec4f(-row_max)));
  }
  return row_weights;
}

// Weights of keys that the query does not see become 0.
fn hide_weights(row_weights: ptr<function, Scores>, ids: HeadIds, query: u32, key_0: u32) {
  for (var n = 0u; n < ROW_VEC4; n++) {
    (*row_weights)[n] = select(vec4f(), (*row_weights)[n], sees_four(ids, query, key_0 + lane_key(n)));
  }
}

// The first key of a tile, with a mask `shown`; of the first tile, past the last.
fn tile_key(job: Job, tile: u32, tiles: u32, shown: u32) -> u32 {
  if (MASK) {
    return min(select(job.begin, shown, shown < job.end), job.ids.keys);
  }
  return min(job.begin + select(0u, tile, tile < tiles) * BLOCK_KEYS, job.ids.keys);
}

fn raise_maximum(row: ptr<function, Row>, mine: f32) {
  let largest_score = max((*row).max, row_maximum(mine));
  *row = Row(largest_score, (*row).sum * exp2((*row).max - largest_score));
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
  let tiles = (max(job.begin, job.end) - job.begin + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let part = subgroup % STRIP_SUBGROUPS;
  let own_sums = subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS * STRIP_SUMS + part * AREA_VEC4; // where its areas begin
  let scale = product_scale();
  // With a mask: the first keys of three tiles that it shows something of, and whether it hides something of them.
  var ahead: vec3u;
  var hides: vec3<bool>;
  if (MASK) {
    let one = next_seen(ids, job.query_0, job.begin, job.end);
    let two = next_seen(ids, job.query_0, one.begin + BLOCK_KEYS, job.end);
    let three = next_seen(ids, job.query_0, two.begin + BLOCK_KEYS, job.end);
    ahead = vec3u(one.begin, two.begin, three.begin);
    hides = vec3<bool>(one.hides, two.hides, three.hides);
  }
  let first_key = select(job.begin, ahead.x, MASK);
  var queries: array<Left, STRIPS * HEAD_STEPS>;
  var staged_queries = fetch_queries(ids, strip_of(job));
  var fetched_keys = fetch_keys(ids, tile_key(job, 0u, tiles, ahead.x));
  var later_keys = fetch_keys(ids, tile_key(job, 1u, tiles, ahead.y));
  let notes = notes_of_thread();
  var samples: array<Staged, SAMPLE_ROUNDS>;
  for (var t = 0u; t < SAMPLE_ROUNDS; t++) {
    samples[t] = fetch_sample(job, STRIP_SUBGROUPS * t + part);
  }
  store_head_tile(&fetched_keys);
  var nothing: HalfScores;
  for (var r = 0u; r < STRIPS; r++) {
    store_weights(&nothing, 0u, r);
  }
  var no_values: ValueFetch;
  store_value_tile(&no_values);
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
  var rows: array<Row, STRIPS>;
  for (var r = 0u; r < STRIPS; r++) {
    rows[r] = first_row(job);
  }
  for (var t = 0u; t < SAMPLE_ROUNDS; t++) {
    var products: array<Sums, STRIPS>;
    for (var r = 0u; r < STRIPS; r++) {
      products[r] = Sums();
    }
    for (var p = 0u; p < PASSES; p++) {
      stage(&samples[t], p, MATRIX_N);
      workgroupBarrier();
      for (var r = 0u; r < STRIPS; r++) {
        for (var d = 0u; d < STAGED_STEPS; d++) {
          let keys = subgroupMatrixLoad<Right, col_major>(
              &sums, own_sums + r * STRIP_SUMS + d * (MATRIX_K / 8u), SUMS_STRIDE);
          products[r] = subgroupMatrixMultiplyAccumulate(
              queries[r * HEAD_STEPS + p * STAGED_STEPS + d], keys, products[r]);
        }
      }
      workgroupBarrier();
    }
    for (var r = 0u; r < STRIPS; r++) {
      subgroupMatrixStore<row_major>(&sums, own_sums + r * STRIP_SUMS, products[r], SUMS_STRIDE);
    }
    workgroupBarrier();
    for (var r = 0u; r < STRIPS; r++) {
      var largest_score = NO_MAXIMUM;
      for (var n = 0u; n < COLUMN_VEC4; n++) {
        let product = sums_vec4(sums_at(r) + lane_vec4(n));
        let key = sample_key(job, r, STRIP_SUBGROUPS * t + lane_area()) + 4u * lane_vec4(n);
        largest_score = max(largest_score, largest_of(score_of(product, ids, query_of(job, r), key, scale, true)));
      }
      raise_maximum(&rows[r], largest_score);
    }
    workgroupBarrier();
  }

  // The first tile's scores, which are a part of the sample too.
  for (var j = 0u; j < TILE_COLUMNS; j++) {
    var products = products_of_tile(&queries, j);
    for (var r = 0u; r < STRIPS; r++) {
      subgroupMatrixStore<row_major>(&sums, own_sums + r * STRIP_SUMS + j * (MATRIX_N / 4u), products[r], SUMS_STRIDE);
    }
  }
  workgroupBarrier();
  store_head_tile(&later_keys);
  for (var r = 0u; r < STRIPS; r++) {
    let scores = scores_of(ids, query_of(job, r), first_key, scale, true, r);
    var largest_score = NO_MAXIMUM;
    for (var n = 0u; n < ROW_VEC4; n++) {
      largest_score = max(largest_score, largest_of(scores[n]));
    }
    raise_maximum(&rows[r], largest_score);
  }
  var accumulator: array<Sums, STRIPS * PART_COLUMNS>;
  for (var r = 0u; r < STRIPS; r++) {
    for (var o = 0u; o < PART_COLUMNS; o++) {
      accumulator[r * PART_COLUMNS + o] = Sums();
    }
  }
  if (thread == 0u) {
    sums[RISES] = vec4u();
  }
  workgroupBarrier();

  var fetched_values = fetch_values(ids, tile_key(job, 0u, tiles, ahead.x));
  fetched_keys = fetch_keys(ids, tile_key(job, 2u, tiles, ahead.z));
  let segments = (tiles + SEGMENT_TILES - 1u) / SEGMENT_TILES; // with a mask, at most
  for (var segment = 0u; segment < FOREVER; segment++) {
    if (segment >= segments || (MASK && ahead.x >= job.end)) {
      break;
    }
    let first = segment * SEGMENT_TILES;
    let here = min(tiles - first, SEGMENT_TILES);
    for (var t = 0u; t < SEGMENT_TILES; t++) {
      if (t >= here || (MASK && ahead.x >= job.end)) {
        break;
      }
      let key_0 = select(job.begin + (first + t) * BLOCK_KEYS, ahead.x, MASK);
      var next: Tile; // with a mask
      if (MASK) {
        next = next_seen(ids, job.query_0, ahead.z + BLOCK_KEYS, job.end);
      }
      var row_weights: array<Scores, STRIPS>;
      for (var r = 0u; r < STRIPS; r++) {
        row_weights[r] = weights_at(ids, query_of(job, r), key_0, scale, rows[r].max, r);
      }
      var products: array<Sums, STRIPS * TILE_COLUMNS>;
      for (var j = 0u; j < TILE_COLUMNS; j++) {
        let block = products_of_tile(&queries, j);
        for (var r = 0u; r < STRIPS; r++) {
          products[r * TILE_COLUMNS + j] = block[r];
        }
      }
      add_values(&accumulator);
      // A bias of −∞ makes a weight 0 by itself.
      if (is_cut(ids, job.query_0, key_0) || (MASK && hides.x)) {
        for (var r = 0u; r < STRIPS; r++) {
          hide_weights(&row_weights[r], ids, query_of(job, r), key_0);
        }
      }
      var tile_weights: array<HalfScores, STRIPS>;
      for (var r = 0u; r < STRIPS; r++) {
        rows[r].sum += sum_of(&row_weights[r]);
        drop_weights(&row_weights[r], ids, query_of(job, r), key_0);
        tile_weights[r] = halves_of_weights(&row_weights[r]);
      }
      if (MASK) {
        ahead = vec3u(ahead.yz, next.begin);
        hides = vec3<bool>(hides.yz, next.hides);
      }
      workgroupBarrier();

      for (var r = 0u; r < STRIPS; r++) {
        for (var j = 0u; j < TILE_COLUMNS; j++) {
          subgroupMatrixStore<row_major>(
              &sums, own_sums + r * STRIP_SUMS + j * (MATRIX_N / 4u), products[r * TILE_COLUMNS + j], SUMS_STRIDE);
        }
        store_weights(&tile_weights[r], 0u, r);
      }
      store_value_tile(&fetched_values);
      store_head_tile(&fetched_keys);
      fetched_values = fetch_values(ids, tile_key(job, first + t + 1u, tiles, ahead.x));
      fetched_keys = fetch_keys(ids, tile_key(job, first + t + 3u, tiles, ahead.z));
      workgroupBarrier();
    }

    if (segment + 1u < segments && (!MASK || ahead.x < job.end)) {
      for (var r = 0u; r < STRIPS; r++) {
        if (!(row_total(rows[r].sum) <= RENEWED_ABOVE)) {
          sums[RISES].x = 1u;
        }
      }
      if (workgroupUniformLoad(&sums[RISES]).x != 0u) {
        if (thread == 0u) {
          sums[RISES].x = 0u;
        }
        for (var r = 0u; r < STRIPS; r++) {
          let total = row_total(rows[r].sum);
          let new_max = rows[r].max + select(0.0, ceil(log2(total)) - RENEWED_BITS, total > RENEWED_ABOVE);
          let rescale = exp2(rows[r].max - new_max);
          // NaN from here on where weights did not fit.
          rows[r] = Row(new_max, select(not_a_number(), rows[r].sum * rescale, rows[r].sum <= LARGEST_SUM));
          // The next tile's products wait where sums are scaled.
          var products = products_of(r);
          scale_weights(rescale, r);
          for (var o = 0u; o < PART_COLUMNS; o++) {
            workgroupBarrier();
            accumulator[r * PART_COLUMNS + o] = scaled_rows(accumulator[r * PART_COLUMNS + o], rescale, r);
          }
          workgroupBarrier();
          put_products(&products, r);
        }
        workgroupBarrier();
      }
    }
  }
  add_values(&accumulator);

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
  var is_missing = false;
  for (var r = 0u; r < STRIPS; r++) {
    let total = row_total(select(not_a_number(), 0.0, finite[r])) + totals[r];
    store_lse(job, r, rows[r].max, total);
    is_missing = is_missing || is_nan(rows[r].max + total);
  }
  settle(job, notes, is_missing);
}
