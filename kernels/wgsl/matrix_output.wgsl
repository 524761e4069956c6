// What the two forward kernels on subgroup matrices share (matrix_forward.wgsl, matrix_watch.wgsl): a workgroup's job, the
// products of a tile, and how results leave.

// What a workgroup works on.
struct Job {
  ids: HeadIds,
  query_0: u32,
  split: u32,
  begin: u32, // the keys that any of its queries may see
  end: u32,
  exists: bool,
}

struct Row {
  max: f32,
  sum: f32, // this lane's share
}

// The job with this number. Without keys (begin ≥ end) all there is to do is to say so.
fn job_of(item: u32) -> Job {
  var job: Job;
  let tiles = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  if (item >= tiles * params.heads * params.batches * params.splits) {
    return job;
  }
  let place = place_of(item, tiles, params.heads * params.batches * params.splits);
  job.split = place.head / params.heads / params.batches;
  job.ids = head_ids(place.head / params.heads % params.batches, place.head % params.heads);
  job.query_0 = (tiles - 1u - place.tile) * BLOCK_QUERIES;
  job.exists = job.query_0 < job.ids.query_rows;
  if (job.query_0 < job.ids.queries) {
    job.begin = key_begin(job.ids, job.query_0) / BLOCK_KEYS * BLOCK_KEYS;
    job.end = key_end(job.ids, min(job.query_0 + BLOCK_QUERIES, job.ids.queries) - 1u);
  }
  if (SPLIT) {
    job.begin = max(job.begin, job.split * params.split_keys);
    job.end = min(job.end, (job.split + 1u) * params.split_keys);
  }
  return job;
}

// The first query of the subgroup's strips.
fn strip_of(job: Job) -> u32 {
  return job.query_0 + MATRIX_M * STRIPS * strip_place();
}

// This lane's query in strip r.
fn query_of(job: Job, r: u32) -> u32 {
  return strip_of(job) + MATRIX_M * r + lane_row();
}

fn first_row(job: Job) -> Row {
  if (SINKS && job.split == 0u) {
    let sink = bitcast<f32>(table_word(params.sinks_at + params.head_first + job.ids.head));
    if (!is_minus_infinity(sink)) {
      let broken = any_not_finite(vec4f(sink));
      return Row(
          select(sink * LOG2_E, NO_MAXIMUM, broken),
          select(0.0, select(1.0, not_a_number(), broken), lane % LANES_PER_ROW == 0u));
    }
  }
  return Row(NO_MAXIMUM, 0.0);
}

fn largest_of(score: vec4f) -> f32 {
  let pair = max(score.xy, score.zw);
  return max(pair.x, pair.y);
}

// The products of the strips' queries with the subgroup's j-th keys of the tile.
fn products_of_tile(queries: ptr<function, array<Left, STRIPS * HEAD_STEPS>>, j: u32) -> array<Sums, STRIPS> {
  let row_of_tile = subgroup % STRIP_SUBGROUPS * (BLOCK_KEYS / STRIP_SUBGROUPS) + j * MATRIX_N;
  var products: array<Sums, STRIPS>;
  for (var r = 0u; r < STRIPS; r++) {
    products[r] = Sums();
  }
  for (var d = 0u; d < HEAD_STEPS; d++) {
    let keys = subgroupMatrixLoad<Right, col_major>(
        &head_tile, row_of_tile * HEAD_STRIDE + d * (MATRIX_K / 4u), HEAD_STRIDE);
    for (var r = 0u; r < STRIPS; r++) {
      products[r] = subgroupMatrixMultiplyAccumulate((*queries)[r * HEAD_STEPS + d], keys, products[r]);
    }
  }
  return products;
}

// Adds the weights of a tile times its values, the subgroup's columns.
fn add_values(accumulator: ptr<function, array<Sums, STRIPS * PART_COLUMNS>>) {
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
          &value_tile, j * MATRIX_K * VALUE_STRIDE + (subgroup % STRIP_SUBGROUPS * PART_COLUMNS + o) * (MATRIX_N / 4u),
          VALUE_STRIDE);
      for (var r = 0u; r < STRIPS; r++) {
        (*accumulator)[r * PART_COLUMNS + o] =
            subgroupMatrixMultiplyAccumulate(left[r], values, (*accumulator)[r * PART_COLUMNS + o]);
      }
    }
  }
}

// A matrix of an accumulator whose rows are multiplied by `factor`. Between barriers.
fn scaled_rows(block: Sums, factor: f32, r: u32) -> Sums {
  let own_sums =
      (subgroup % SUBGROUPS / STRIP_SUBGROUPS * STRIPS + r) * STRIP_SUMS + subgroup % STRIP_SUBGROUPS * AREA_VEC4;
  subgroupMatrixStore<row_major>(
      &sums, own_sums, block, SUMS_STRIDE);
  workgroupBarrier();
  for (var n = 0u; n < COLUMN_VEC4; n++) {
    let at = sums_at(r) + lane_vec4(n);
    sums[at] = bitcast<vec4u>(sums_vec4(at) * factor);
  }
  workgroupBarrier();
  return subgroupMatrixLoad<Sums, row_major>(
      &sums, own_sums, SUMS_STRIDE);
}

// The column of the result, counted in matrices, that this lane reads when each subgroup has stored its column o. Past the
// last where they do not come out even.
fn lane_column(o: u32) -> u32 {
  return lane_area() * PART_COLUMNS + o;
}

// Writes the columns o of strip r's results, which are in `sums`. Gives whether this lane's are finite.
fn write_column(job: Job, r: u32, o: u32, total: f32) -> bool {
  let query = query_of(job, r);
  let at = query_at(params.output, job.ids, query) + job.split * params.split_output;
  let empty = total == 0.0;
  var normalise = power_of_two(operand_exponent(V)) / total;
  if (DROPOUT) {
    normalise *= params.kept_scale;
  }
  var finite = true;
  for (var n = 0u; n < COLUMN_VEC4; n++) {
    let d4 = lane_column(o) * (MATRIX_N / 4u) + lane_vec4(n);
    // Merging passes over parts that saw nothing.
    if (query < job.ids.query_rows && d4 < VALUE_VEC4 && !(SPLIT && empty)) {
      let value = select(sums_vec4(sums_at(r) + lane_vec4(n)) * normalise, vec4f(), empty);
      store_result_0(at, d4, VALUE_SIZE, value);
      finite = finite && !any_not_finite(value);
    }
  }
  return finite;
}

fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn store_lse(job: Job, r: u32, row_max: f32, total: f32) {
  let query = query_of(job, r);
  if (query < job.ids.query_rows && lane % LANES_PER_ROW == 0u) {
    // As in forward.wgsl: a float and the exact rest. The product with ln 2 has a rest of its own.
    let largest_score = row_max * LN_2;
    let product_rest = fma(row_max, LN_2, -largest_score);
    let log_sum = log_or_nan(total);
    let sum = largest_score + log_sum;
    let log_part = sum - largest_score;
    let tail = (largest_score - (sum - log_part)) + (log_sum - log_part) + product_rest;
    let row = query_at(params.rows, job.ids, query) + job.split * params.split_rows;
    lse[row] = select(sum, negative_infinity(), total == 0.0);
    lse_tail[row] = select(tail, 0.0, total == 0.0);
  }
}
