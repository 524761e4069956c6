// A tile of results with one row a query (the output, dQ): weights [query][key] times rows of V or K.

// Thread (tx, ty) owns queries query_row(i) and vec4 columns column(j): accumulator[i·COLUMNS + j].
alias QueryTile = array<vec4f, ROWS * COLUMNS>;

// tile[query][·] += weights[query][key] · right[key − first][·] for the ROW_CHUNK keys from `first` on.
fn multiply_weights(tile: ptr<function, QueryTile>, first: u32) {
  for (var key4 = 0u; key4 < ROW_CHUNK / 4u; key4++) {
    for (var j = 0u; j < COLUMNS; j++) {
      let at = 4u * key4 * RIGHT_WIDTH + column(j);
      let right_0 = right[at];
      let right_1 = right[at + RIGHT_WIDTH];
      let right_2 = right[at + 2u * RIGHT_WIDTH];
      let right_3 = right[at + 3u * RIGHT_WIDTH];
      for (var i = 0u; i < ROWS; i++) {
        let weights = left[query_row(i) * WEIGHTS_STRIDE + first / 4u + key4];
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

// The same pair by pair, leaving out what is not seen. `key_0` is the tile's first key.
fn multiply_seen_weights(
    tile: ptr<function, QueryTile>, ids: HeadIds, query_0: u32, key_0: u32, first: u32) {
  for (var n = 0u; n < ROW_CHUNK; n++) {
    for (var i = 0u; i < ROWS; i++) {
      if (sees(ids, query_0 + query_row(i), key_0 + first + n)) {
        let weight = left[query_row(i) * WEIGHTS_STRIDE + (first + n) / 4u][n % 4u];
        for (var j = 0u; j < COLUMNS; j++) {
          (*tile)[i * COLUMNS + j] += weight * right[n * RIGHT_WIDTH + column(j)];
        }
      }
    }
  }
}
