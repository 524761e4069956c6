// A tile of results with one row a key (dK, dV): weights [query][key] turned, times rows of Q or dO.

// Thread (tx, ty) owns the keys 4·(ty + THREADS_Y·g) + c (g < KEY_GROUPS, c < 4) and vec4 columns column(j):
// accumulator[(4·g + c)·COLUMNS + j].
alias KeyTile = array<vec4f, 4u * KEY_GROUPS * COLUMNS>;

fn key_group(g: u32) -> u32 {
  return ty + THREADS_Y * g;
}

// tile[key][·] += weights[query][key] · right[query][·] for the queries of the tile's n-th step of ROW_CHUNK.
fn multiply_turned_weights(tile: ptr<function, KeyTile>, step: u32) {
  let x = tx % THREADS_X;
  let y = ty % THREADS_Y;
  let first = (step % (BLOCK_QUERIES / ROW_CHUNK)) * ROW_CHUNK;
  for (var n = 0u; n < ROW_CHUNK; n++) {
    for (var g = 0u; g < KEY_GROUPS; g++) {
      let weights = left[(first + n) * WEIGHTS_STRIDE + y + THREADS_Y * g];
      for (var j = 0u; j < COLUMNS; j++) {
        let row = right[n * RIGHT_WIDTH + x + THREADS_X * j];
        let at = 4u * g * COLUMNS + j;
        (*tile)[at] = fma(vec4f(weights.x), row, (*tile)[at]);
        (*tile)[at + COLUMNS] = fma(vec4f(weights.y), row, (*tile)[at + COLUMNS]);
        (*tile)[at + 2u * COLUMNS] = fma(vec4f(weights.z), row, (*tile)[at + 2u * COLUMNS]);
        (*tile)[at + 3u * COLUMNS] = fma(vec4f(weights.w), row, (*tile)[at + 3u * COLUMNS]);
      }
    }
  }
}

// The same pair by pair, leaving out what is not seen. The tile starts at (query_0, key_0).
fn multiply_seen_turned_weights(tile: ptr<function, KeyTile>, ids: HeadIds, query_0: u32, key_0: u32, step: u32) {
  for (var n = 0u; n < ROW_CHUNK; n++) {
    let query = step * ROW_CHUNK + n;
    for (var g = 0u; g < KEY_GROUPS; g++) {
      for (var c = 0u; c < 4u; c++) {
        if (sees(ids, query_0 + query, key_0 + 4u * key_group(g) + c)) {
          let weight = left[query * WEIGHTS_STRIDE + key_group(g)][c];
          for (var j = 0u; j < COLUMNS; j++) {
            (*tile)[(4u * g + c) * COLUMNS + j] += weight * right[n * RIGHT_WIDTH + column(j)];
          }
        }
      }
    }
  }
}
