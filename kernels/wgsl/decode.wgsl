// Forward pass for few queries over many keys, bound by the reading of K and V: a workgroup takes the queries of all heads
// that share a key head (ROWS of them), so that K and V are read once, and one part of the keys.
//
// A row of THREADS_X threads reads whole rows of K and V, KEYS_AT_ONCE of them at a time, straight into registers:
// thread tx has their vec4 columns tx + THREADS_X·j. Each row of threads keeps an online softmax of its own over the
// keys that it has seen, so that in the loop over the keys threads meet only for the sums of products; the rows of
// threads are joined at the end.
// result_0 is the output; results, SPLIT and merge_splits as in forward.wgsl.

@group(0) @binding(9) var<storage, read_write> lse: array<f32>;       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read_write> lse_tail: array<f32>; // the same: what rounding took from the LSE

var<workgroup> queries: array<vec4f, QUERIES_LENGTH>; // [ROWS][HEAD_VECS·THREADS_X]
var<workgroup> shared_sums: array<vec4f, SHARED_LENGTH>; // [SHARED_ITEMS][THREADS_Y][THREADS_X]
var<workgroup> group_max: array<f32, ROWS * THREADS_Y>; // [ROWS][THREADS_Y]
var<workgroup> group_sum: array<f32, ROWS * THREADS_Y>;

// [ROWS][KEYS_AT_ONCE / 4]: products, scores, then weights of a row of threads' keys.
alias KeyScores = array<vec4f, SCORES>;

// A query of one of the heads that share the key head.
struct Row {
  ids: HeadIds,
  query: u32,
}

fn row_of(ids: HeadIds, row: u32) -> Row {
  var own = ids;
  own.head += row / params.queries;
  return Row(own, row % params.queries);
}

// Adds up what each `lanes` neighbours of a row of threads have added up already. Uses `shared_sums`.
fn sum_in_memory(scores: ptr<function, KeyScores>, lanes: u32) {
  for (var trip = 0u; trip < SCORES / SHARED_ITEMS; trip++) {
    workgroupBarrier();
    for (var n = 0u; n < SHARED_ITEMS; n++) {
      if (tx % lanes == 0u) {
        shared_sums[n * THREADS + ty * THREADS_X + tx / lanes] = (*scores)[trip * SHARED_ITEMS + n];
      }
    }
    workgroupBarrier();
    for (var n = 0u; n < SHARED_ITEMS; n++) {
      var sum = shared_sums[n * THREADS + ty * THREADS_X];
      for (var part = 1u; part < THREADS_X / lanes; part++) {
        sum += shared_sums[n * THREADS + ty * THREADS_X + part];
      }
      (*scores)[trip * SHARED_ITEMS + n] = sum;
    }
  }
}

fn stage_queries(ids: HeadIds, row_0: u32, last: u32) {
  for (var n = 0u; n < QUERIES_TRIPS; n++) {
    let at = thread + THREADS * n;
    let d4 = at % (HEAD_VECS * THREADS_X);
    if (QUERIES_EXACT || at < QUERIES_LENGTH) {
      let row = row_of(ids, min(row_0 + at / (HEAD_VECS * THREADS_X), last));
      var value = vec4f();
      if (HEAD_EXACT || d4 < HEAD_VEC4) {
        value = load_q(query_at(params.q, row.ids, min(row.query, ids.query_rows - 1u)), d4);
      }
      queries[at] = value;
    }
  }
}

alias Keys = array<vec4f, KEYS_AT_ONCE * HEAD_VECS>;
alias Values = array<vec4f, KEYS_AT_ONCE * VALUE_VECS>;

// Rows of K from key `first` on. Keys past the end read the last one; see is_partial_tile.
fn read_keys(keys: ptr<function, Keys>, ids: HeadIds, first: u32) {
  for (var u = 0u; u < KEYS_AT_ONCE; u++) {
    let at = key_at(params.k, ids, min(first + u, ids.keys - 1u));
    for (var j = 0u; j < HEAD_VECS; j++) {
      let d4 = tx + THREADS_X * j;
      if (HEAD_EXACT || d4 < HEAD_VEC4) {
        (*keys)[u * HEAD_VECS + j] = load_k(at, d4);
      } else {
        (*keys)[u * HEAD_VECS + j] = vec4f();
      }
    }
  }
}

fn read_values(values: ptr<function, Values>, ids: HeadIds, first: u32) {
  for (var u = 0u; u < KEYS_AT_ONCE; u++) {
    let at = key_at(params.v, ids, min(first + u, ids.keys - 1u));
    for (var j = 0u; j < VALUE_VECS; j++) {
      // Columns past the row's end are not stored.
      (*values)[u * VALUE_VECS + j] = load_v(at, min(tx + THREADS_X * j, VALUE_VEC4 - 1u));
    }
  }
}

// This thread's share of the products of all queries with its row's keys.
fn multiply_keys(scores: ptr<function, KeyScores>, keys: ptr<function, Keys>) {
  let x = tx % THREADS_X;
  for (var r = 0u; r < ROWS; r++) {
    for (var g = 0u; g < KEYS_AT_ONCE / 4u; g++) {
      var sum = vec4f();
      for (var j = 0u; j < HEAD_VECS; j++) {
        let query = queries[(r * HEAD_VECS + j) * THREADS_X + x];
        let at = 4u * g * HEAD_VECS + j;
        sum += vec4f(dot(query, (*keys)[at]), dot(query, (*keys)[at + HEAD_VECS]),
                     dot(query, (*keys)[at + 2u * HEAD_VECS]), dot(query, (*keys)[at + 3u * HEAD_VECS]));
      }
      (*scores)[r * (KEYS_AT_ONCE / 4u) + g] = sum;
    }
  }
}

// True when not every query sees every key of the tile at key_0.
fn is_partial_tile(ids: HeadIds, key_0: u32) -> bool {
  return MASK || BIAS || params.queries > ids.queries || key_0 + BLOCK_KEYS > ids.keys ||
      (WINDOW_RIGHT && key_end(ids, 0u) < key_0 + BLOCK_KEYS) ||
      (WINDOW_LEFT && key_begin(ids, ids.queries - 1u) > key_0);
}

alias Accumulator = array<vec4f, ROWS * VALUE_VECS>;

fn multiply_values(
    sums: ptr<function, Accumulator>, weights: ptr<function, KeyScores>, values: ptr<function, Values>) {
  for (var r = 0u; r < ROWS; r++) {
    for (var j = 0u; j < VALUE_VECS; j++) {
      var sum = (*sums)[r * VALUE_VECS + j];
      for (var g = 0u; g < KEYS_AT_ONCE / 4u; g++) {
        let weight = (*weights)[r * (KEYS_AT_ONCE / 4u) + g];
        let at = 4u * g * VALUE_VECS + j;
        sum = fma(vec4f(weight.x), (*values)[at], sum);
        sum = fma(vec4f(weight.y), (*values)[at + VALUE_VECS], sum);
        sum = fma(vec4f(weight.z), (*values)[at + 2u * VALUE_VECS], sum);
        sum = fma(vec4f(weight.w), (*values)[at + 3u * VALUE_VECS], sum);
      }
      (*sums)[r * VALUE_VECS + j] = sum;
    }
  }
}

// The same where some keys are hidden: 0 · NaN is NaN, so a value that is not seen must not meet its weight of 0.
fn multiply_seen_values(
    sums: ptr<function, Accumulator>, weights: ptr<function, KeyScores>, values: ptr<function, Values>,
    hidden: ptr<function, Hidden>) {
  for (var r = 0u; r < ROWS; r++) {
    for (var u = 0u; u < KEYS_AT_ONCE; u++) {
      if (((*hidden)[r] & (1u << u)) == 0u) {
        for (var j = 0u; j < VALUE_VECS; j++) {
          (*sums)[r * VALUE_VECS + j] +=
              (*weights)[r * (KEYS_AT_ONCE / 4u) + u / 4u][u % 4u] * (*values)[u * VALUE_VECS + j];
        }
      }
    }
  }
}

alias Hidden = array<u32, ROWS>; // a bit for each of KEYS_AT_ONCE keys

// Notes which keys from `first` on each query does not see.
fn hide(hidden: ptr<function, Hidden>, ids: HeadIds, row_0: u32, first: u32) {
  let last = params.heads_per_key * params.queries - 1u;
  for (var r = 0u; r < ROWS; r++) {
    let row = row_of(ids, min(row_0 + r, last));
    for (var u = 0u; u < KEYS_AT_ONCE; u++) {
      if (!sees(row.ids, row.query, first + u)) {
        (*hidden)[r] |= 1u << u;
      }
    }
  }
}

fn any_is_seen(hidden: ptr<function, Hidden>) -> bool {
  var hidden_from_all = (*hidden)[0];
  for (var r = 1u; r < ROWS; r++) {
    hidden_from_all &= (*hidden)[r];
  }
  return hidden_from_all != (1u << KEYS_AT_ONCE) - 1u;
}

fn run_workgroup(group_id: vec3u, groups: vec3u, index: u32, lanes: u32) {
  start_thread(index);
  let rows = params.heads_per_key * params.queries;
  let tiles = (rows + ROWS - 1u) / ROWS;
  let key_heads = params.heads / params.heads_per_key;
  let item = group_id.x + group_id.y * groups.x;
  let split = item / tiles / key_heads / params.batches;
  if (split >= params.splits) {
    return;
  }
  let ids = head_ids(item / tiles / key_heads % params.batches, item / tiles % key_heads * params.heads_per_key);
  if (ids.query_rows == 0u) {
    return;
  }
  let row_0 = item % tiles * ROWS;
  stage_queries(ids, row_0, rows - 1u);
  workgroupBarrier();

  var row_max: array<f32, ROWS>; // of all scores that this row of threads has seen, or NOT_SEEN
  var row_sum: array<f32, ROWS>; // its denominator
  var accumulator: Accumulator;
  for (var r = 0u; r < ROWS; r++) {
    row_max[r] = NOT_SEEN;
    row_sum[r] = 0.0;
    let row = row_of(ids, min(row_0 + r, rows - 1u));
    if (SINKS && params.resume == 0u && split == 0u && ty == 0u) {
      let sink = bitcast<f32>(table_word(params.sinks_at + params.head_first + row.ids.head));
      if (!is_minus_infinity(sink)) {
        // A sink of NaN or ∞ makes its rows NaN. WGSL's max may lose it, the sum does not.
        let broken = any_not_finite(vec4f(sink));
        row_max[r] = select(sink, NOT_SEEN, broken);
        row_sum[r] = select(1.0, not_a_number(), broken);
      }
    }
    if (params.resume != 0u && ty == 0u && row.query < ids.query_rows) {
      // As in the forward kernel: what an earlier window of keys left counts as one key.
      let at_row = query_at(params.rows, row.ids, row.query);
      let earlier = lse[at_row];
      if (!(earlier < NOT_SEEN)) {
        let weight = 1.0 + lse_tail[at_row];
        row_max[r] = earlier;
        row_sum[r] = weight;
        let at = query_at(params.output, row.ids, row.query);
        for (var j = 0u; j < VALUE_VECS; j++) {
          let d4 = min(tx + THREADS_X * j, VALUE_VEC4 - 1u);
          accumulator[r * VALUE_VECS + j] = weight * load_result_0(at, d4, VALUE_SIZE);
        }
      }
    }
  }

  // The part of the keys is found here, not by the host: sequences have lengths of their own. It begins at a multiple
  // of 4, as dropout counts keys.
  var begin = key_begin(ids, 0u) / 4u * 4u;
  var end = select(0u, key_end(ids, ids.queries - 1u), ids.queries > 0u);
  if (SPLIT) {
    let key_tiles = (max(begin, end) - begin + BLOCK_KEYS - 1u) / BLOCK_KEYS;
    let part = (key_tiles + params.splits - 1u) / params.splits * BLOCK_KEYS;
    begin += split * part;
    end = min(end, begin + part);
  }
  for (var key_0 = begin; key_0 < end; key_0 += BLOCK_KEYS) {
    let first = key_0 + KEYS_AT_ONCE * ty;
    let partial = is_partial_tile(ids, key_0);
    var hidden = Hidden();
    if (partial) {
      hide(&hidden, ids, row_0, first);
    }
    // What a mask hides from all queries need not be read.
    let reads = !(MASK || BIAS) || any_is_seen(&hidden);
    var keys: Keys;
    var values: Values;
    if (reads) {
      read_keys(&keys, ids, first);
      if (EARLY_VALUES) {
        read_values(&values, ids, first);
      }
    }
    var scores: KeyScores;
    multiply_keys(&scores, &keys);
    sum_over_lanes(&scores, lanes);
    if (!EARLY_VALUES && reads) {
      read_values(&values, ids, first);
    }

    for (var r = 0u; r < ROWS; r++) {
      let row = row_of(ids, min(row_0 + r, rows - 1u));
      var new_max = row_max[r];
      for (var g = 0u; g < KEYS_AT_ONCE / 4u; g++) {
        let n = r * (KEYS_AT_ONCE / 4u) + g;
        var score = with_additions(cap(scaled(scores[n])), row.ids, row.query, first + 4u * g);
        if (partial) {
          let bits = (vec4u(hidden[r]) >> (4u * g + vec4u(0u, 1u, 2u, 3u))) & vec4u(1u);
          score = select(score, vec4f(NOT_SEEN), bits != vec4u());
        }
        scores[n] = score;
        let largest = max(score.xy, score.zw);
        new_max = max(new_max, max(largest.x, largest.y));
      }
      let rescale = exp(row_max[r] - new_max);
      row_max[r] = new_max;
      var sum = row_sum[r] * rescale;
      for (var g = 0u; g < KEYS_AT_ONCE / 4u; g++) {
        let n = r * (KEYS_AT_ONCE / 4u) + g;
        let weights = select(exp_or_nan(scores[n] - new_max), vec4f(), scores[n] == vec4f(NOT_SEEN));
        sum += dot(weights, vec4f(1.0));
        scores[n] = weights;
        if (DROPOUT) {
          scores[n] *= factors_of(row.ids, row.query, first + 4u * g);
        }
      }
      row_sum[r] = sum;
      for (var j = 0u; j < VALUE_VECS; j++) {
        accumulator[r * VALUE_VECS + j] *= rescale;
      }
    }

    if (partial) {
      multiply_seen_values(&accumulator, &scores, &values, &hidden);
    } else {
      multiply_values(&accumulator, &scores, &values);
    }
  }

  // Join the rows of threads.
  if (tx == 0u) {
    for (var r = 0u; r < ROWS; r++) {
      group_max[r * THREADS_Y + ty] = row_max[r];
      group_sum[r * THREADS_Y + ty] = row_sum[r];
    }
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    let row = row_of(ids, min(row_0 + r, rows - 1u));
    let stored = row_0 + r < rows && row.query < ids.query_rows;
    var largest = group_max[r * THREADS_Y];
    for (var y = 1u; y < THREADS_Y; y++) {
      largest = max(largest, group_max[r * THREADS_Y + y]);
    }
    var total = 0.0;
    for (var y = 0u; y < THREADS_Y; y++) {
      let factor = exp_or_nan(vec4f(group_max[r * THREADS_Y + y] - largest)).x;
      total += group_sum[r * THREADS_Y + y] * factor;
    }
    let empty = total == 0.0;
    let factor = exp_or_nan(vec4f(row_max[r] - largest)).x;
    let at = query_at(params.output, row.ids, row.query) + split * params.split_output;
    for (var trip = 0u; trip < VALUE_VECS / SHARED_VALUES; trip++) {
      workgroupBarrier();
      for (var n = 0u; n < SHARED_VALUES; n++) {
        shared_sums[n * THREADS + thread % THREADS] = accumulator[r * VALUE_VECS + trip * SHARED_VALUES + n] * factor;
      }
      workgroupBarrier();
      for (var n = 0u; n < SHARED_VALUES; n++) {
        let d4 = tx + THREADS_X * (trip * SHARED_VALUES + n);
        if (ty == (r + n) % THREADS_Y && d4 < VALUE_VEC4 && stored) {
          var sum = vec4f();
          for (var y = 0u; y < THREADS_Y; y++) {
            sum += shared_sums[n * THREADS + y * THREADS_X + tx % THREADS_X];
          }
          store_result_0(at, d4, VALUE_SIZE, select(sum * (1.0 / total), vec4f(), empty));
        }
      }
    }
    if (thread == 0u && stored) {
      // The sum of two floats and its exact rest, as in the forward kernel.
      let log_sum = log_or_nan(total);
      let sum = largest + log_sum;
      let at_row = query_at(params.rows, row.ids, row.query) + split * params.split_rows;
      lse[at_row] = select(sum, negative_infinity(), empty);
      lse_tail[at_row] = select(rounding_error(largest, log_sum), 0.0, empty);
    }
  }
}
