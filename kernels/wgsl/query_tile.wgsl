// A tile of results with one row a query (the output, dQ): weights [query][key] times rows of V or K.

// Thread (tx, ty) owns queries query_row(i) and vec4 columns column(j): accumulator[i·COLUMNS + j].
alias QueryTile = array<vec4f, ROWS * COLUMNS>;

// tile[query][·] += weights[query][key] · right[key][·] for the keys of the tile's n-th step of ROW_CHUNK.
fn multiply_weights(tile: ptr<function, QueryTile>, step: u32) {
  let x = tx % THREADS_X;
  let y = ty % THREADS_Y;
  let first = (step % (BLOCK_KEYS / ROW_CHUNK)) * (ROW_CHUNK / 4u);
  for (var key4 = 0u; key4 < ROW_CHUNK / 4u; key4++) {
    for (var j = 0u; j < COLUMNS; j++) {
      let right_0 = right[4u * key4 * RIGHT_WIDTH + x + THREADS_X * j];
      let right_1 = right[(4u * key4 + 1u) * RIGHT_WIDTH + x + THREADS_X * j];
      let right_2 = right[(4u * key4 + 2u) * RIGHT_WIDTH + x + THREADS_X * j];
      let right_3 = right[(4u * key4 + 3u) * RIGHT_WIDTH + x + THREADS_X * j];
      for (var i = 0u; i < ROWS; i++) {
        let weights = left[(y + THREADS_Y * i) * WEIGHTS_STRIDE + first + key4];
        var sum = (*tile)[i * COLUMNS + j];
        sum = fma(vec4f(weights.x), right_0, sum);
        sum = fma(vec4f(weights.y), right_1, sum);
        sum = fma(vec4f(weights.z), right_2, sum);
        sum = fma(vec4f(weights.w), right_3, sum);
        (*tile)[i * COLUMNS + j] = sum;
      }
    }
  }
}

// The same pair by pair, leaving out what is not seen. The tile starts at (query_0, key_0).
fn multiply_seen_weights(tile: ptr<function, QueryTile>, ids: HeadIds, query_0: u32, key_0: u32, step: u32) {
  for (var n = 0u; n < ROW_CHUNK; n++) {
    let key = step * ROW_CHUNK + n;
    for (var i = 0u; i < ROWS; i++) {
      if (sees(ids, query_0 + query_row(i), key_0 + key)) {
        let weight = left[query_row(i) * WEIGHTS_STRIDE + key / 4u][key % 4u];
        for (var j = 0u; j < COLUMNS; j++) {
          (*tile)[i * COLUMNS + j] += weight * right[n * RIGHT_WIDTH + column(j)];
        }
      }
    }
  }
}
