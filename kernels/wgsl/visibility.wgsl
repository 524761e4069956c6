// Which keys a query sees. Positions here are within the window; windows around the diagonal (causal is one) and the
// dropout stream work on positions of the whole problem, or of the sequence.

// Places that a key lies right of the diagonal of a query; negative: left.
fn distance(ids: HeadIds, query: u32, key: u32) -> i32 {
  return i32(params.key_first + key) - i32(params.query_first + query) - ids.diagonal;
}

fn is_minus_infinity(x: f32) -> bool {
  return bitcast<u32>(x) == 0xff800000u;
}

fn sees(ids: HeadIds, query: u32, key: u32) -> bool {
  var seen = key < ids.keys && query < ids.queries;
  if (WINDOW_RIGHT) {
    seen = seen && distance(ids, query, key) <= params.window_right;
  }
  if (WINDOW_LEFT) {
    seen = seen && distance(ids, query, key) >= -params.window_left;
  }
  if (MASK) {
    seen = seen && mask_allows(ids, query, key);
  }
  if (BIAS) {
    seen = seen && !is_minus_infinity(bias_at(ids, query, key));
  }
  return seen;
}

fn are_minus_infinity(x: vec4f) -> vec4<bool> {
  return bitcast<vec4u>(x) == vec4u(0xff800000u);
}

// Which of the four keys from `key` on, a multiple of 4, a query sees: as `sees`, with what holds for the query found once.
fn sees_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  let keys = vec4u(key) + vec4u(0u, 1u, 2u, 3u);
  var seen = keys < vec4u(select(0u, key_end(ids, query), query < ids.queries));
  if (WINDOW_LEFT) {
    seen = seen & (keys >= vec4u(key_begin(ids, query)));
  }
  if (MASK) {
    seen = seen & mask_allows_four(ids, query, key);
  }
  if (BIAS) {
    seen = seen & !are_minus_infinity(bias_of_four(ids, query, key));
  }
  return seen;
}

// The keys that the queries from `query` on see begin here, and those up to `query` see end before, as far as lengths
// and window tell.
fn key_begin(ids: HeadIds, query: u32) -> u32 {
  if (!WINDOW_LEFT) {
    return 0u;
  }
  let begin = i32(params.query_first + query) + ids.diagonal - params.window_left - i32(params.key_first);
  return u32(clamp(begin, 0, i32(ids.keys)));
}

fn key_end(ids: HeadIds, query: u32) -> u32 {
  if (!WINDOW_RIGHT) {
    return ids.keys;
  }
  let end = i32(params.query_first + query) + ids.diagonal + params.window_right + 1 - i32(params.key_first);
  return u32(clamp(end, 0, i32(ids.keys)));
}

// The same for the queries that see a key.
fn query_begin(ids: HeadIds, key: u32) -> u32 {
  if (!WINDOW_RIGHT) {
    return 0u;
  }
  let begin = i32(params.key_first + key) - ids.diagonal - params.window_right - i32(params.query_first);
  return u32(clamp(begin, 0, i32(ids.queries)));
}

fn query_end(ids: HeadIds, key: u32) -> u32 {
  if (!WINDOW_LEFT) {
    return ids.queries;
  }
  let end = i32(params.key_first + key) - ids.diagonal + params.window_left + 1 - i32(params.query_first);
  return u32(clamp(end, 0, i32(ids.queries)));
}

// True when not every query of the tile at (query_0, key_0) sees every key, as far as lengths and window tell.
fn is_cut(ids: HeadIds, query_0: u32, key_0: u32) -> bool {
  return query_0 + BLOCK_QUERIES > ids.queries || key_0 + BLOCK_KEYS > ids.keys ||
      (WINDOW_RIGHT && key_end(ids, query_0) < key_0 + BLOCK_KEYS) ||
      (WINDOW_LEFT && key_begin(ids, query_0 + BLOCK_QUERIES - 1u) > key_0);
}

// What a mask does to a tile: whether it shows some query a key, and whether it hides one.
struct TileLook {
  shows: bool,
  hides: bool,
}

// Whether a tile has to be tested pair by pair, as far as anything tells. Of a mask a look at the tile does.
fn is_partial(ids: HeadIds, query_0: u32, key_0: u32, hides: bool) -> bool {
  return hides || BIAS || is_cut(ids, query_0, key_0);
}

// Dropout factors of a query and of the four keys from `key` on.
fn factors_of(ids: HeadIds, query: u32, key: u32) -> vec4f {
  if (!DROPOUT) {
    return vec4f(1.0);
  }
  return dropout_factors(params.batch_first + ids.batch, params.head_first + ids.head, params.query_first + query,
                         params.key_first + key);
}
