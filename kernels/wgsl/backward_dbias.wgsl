// The gradient of the bias: dS of every pair, summed over what the bias is broadcast along. A workgroup makes one tile of
// it, or with OVER_QUERIES (OVER_KEYS) what one tile of keys (queries) has, walking over the tiles of the other side.
// Batches and heads are summed here where the gradient has both lengths; elsewhere the host sums them.

@group(0) @binding(14) var<storage, read_write> d_bias: array<f32>; // biasGradientShape in src/op/problem

fn add_to_bias(batch: u32, head: u32, query: u32, key: u32, value: f32) {
  let at = params.d_bias.base + batch * params.d_bias.batch + head * params.d_bias.head + query * params.d_bias.row +
      key * params.d_bias_key;
  if (params.resume != 0u) {
    d_bias[at] += value;
  } else {
    d_bias[at] = value;
  }
}

// True when some query of the tile sees some key, as far as lengths and window tell.
fn is_reached(ids: HeadIds, query_0: u32, key_0: u32) -> bool {
  if (query_0 >= ids.queries) {
    return false;
  }
  let last = min(query_0 + BLOCK_QUERIES, ids.queries) - 1u;
  return key_0 < key_end(ids, last) && key_0 + BLOCK_KEYS > key_begin(ids, query_0);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  start_thread(index);
  let all_query_tiles = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES;
  let all_key_tiles = (params.keys + BLOCK_KEYS - 1u) / BLOCK_KEYS;
  let query_tiles = select(all_query_tiles, 1u, OVER_QUERIES);
  let key_tiles = select(all_key_tiles, 1u, OVER_KEYS);
  let item = group_id.x + group_id.y * groups.x;
  let key_tile = item % key_tiles;
  let query_tile = item / key_tiles % query_tiles;
  let head = item / key_tiles / query_tiles % params.d_bias_heads;
  let batch = item / key_tiles / query_tiles / params.d_bias_heads;
  if (batch >= params.d_bias_batches) {
    return;
  }
  let batch_end = select(batch + 1u, params.batches, params.d_bias_batches == 1u);
  let head_end = select(head + 1u, params.heads, params.d_bias_heads == 1u);
  let query_tile_end = select(query_tile + 1u, all_query_tiles, OVER_QUERIES);
  let key_tile_end = select(key_tile + 1u, all_key_tiles, OVER_KEYS);

  var sum = Scores();
  for (var b = batch; b < batch_end; b++) {
    for (var h = head; h < head_end; h++) {
      let ids = head_ids(b, h);
      for (var query_n = query_tile; query_n < query_tile_end; query_n++) {
        for (var key_n = key_tile; key_n < key_tile_end; key_n++) {
          let query_0 = query_n * BLOCK_QUERIES;
          let key_0 = key_n * BLOCK_KEYS;
          if (!is_reached(ids, query_0, key_0)) {
            continue;
          }
          if (!look_at_tile(ids, query_0, key_0).shows) {
            continue;
          }
          var scores = Scores();
          make_scores(&scores, ids, query_0, key_0);
          var d_scores = Scores();
          make_d_weights(&d_scores, ids, query_0, key_0);
          softmax_gradient(&scores, &d_scores, ids, query_0, key_0, true);
          for (var i = 0u; i < ROWS; i++) {
            sum[i] += d_scores[i];
          }
        }
      }
    }
  }

  let query_0 = query_tile * BLOCK_QUERIES;
  let key = key_tile * BLOCK_KEYS + 4u * tx;
  if (OVER_QUERIES) {
    var mine = vec4f();
    for (var i = 0u; i < ROWS; i++) {
      mine += sum[i];
    }
    workgroupBarrier();
    left[ty * THREADS_X + tx] = mine;
    workgroupBarrier();
    if (ty == 0u) {
      for (var y = 1u; y < THREADS_Y; y++) {
        mine += left[y * THREADS_X + tx];
      }
      for (var c = 0u; c < 4u; c++) {
        if (key + c < params.keys) {
          add_to_bias(batch, head, 0u, key + c, mine[c]);
        }
      }
    }
  } else if (OVER_KEYS) {
    workgroupBarrier();
    store_weights(&sum);
    workgroupBarrier();
    if (tx == 0u) {
      for (var i = 0u; i < ROWS; i++) {
        var total = vec4f();
        for (var x = 0u; x < THREADS_X; x++) {
          total += left[query_row(i) * WEIGHTS_STRIDE + x];
        }
        if (query_0 + query_row(i) < params.queries) {
          add_to_bias(batch, head, query_0 + query_row(i), 0u, dot(total, vec4f(1.0)));
        }
      }
    }
  } else {
    for (var i = 0u; i < ROWS; i++) {
      let query = query_0 + query_row(i);
      for (var c = 0u; c < 4u; c++) {
        if (query < params.queries && key + c < params.keys) {
          add_to_bias(batch, head, query, key + c, sum[i][c]);
        }
      }
    }
  }
}
