// Which keys a query sees, and with what score. Positions here are within the window; causal masking and the
// dropout stream work on positions of the whole problem.

@group(0) @binding(8) var<storage, read> mask: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

// The head a workgroup works on, counted from the start of the window.
struct HeadIds {
  batch: u32,
  head: u32,
  key_head: u32,
}

fn head_ids(batch: u32, head: u32) -> HeadIds {
  // The bound keys start at the key head of the window's first query head.
  let first_key_head = params.head_first / params.group;
  return HeadIds(batch, head, (params.head_first + head) / params.group - first_key_head);
}

fn sees(ids: HeadIds, query: u32, key: u32) -> bool {
  var seen = key < params.keys && query < params.queries;
  if (CAUSAL) {
    seen = seen && i32(params.key_first + key) <= i32(params.query_first + query) + params.causal_offset;
  }
  if (MASK) {
    let row = min(query, params.queries - 1u);
    let at = view_at(params.mask, ids.batch, row, ids.head) + min(key, params.keys - 1u) * params.mask_key;
    seen = seen && mask[at] != 0;
  }
  return seen;
}

// One past the last key of the window that the queries up to `last_query` can see, as far as causal tells.
fn key_end(last_query: u32) -> u32 {
  if (!CAUSAL) {
    return params.keys;
  }
  let end = i32(params.query_first + last_query) + params.causal_offset + 1 - i32(params.key_first);
  return u32(clamp(end, 0, i32(params.keys)));
}

// The first query of the window that can see `key`, as far as causal tells.
fn query_begin(key: u32) -> u32 {
  if (!CAUSAL) {
    return 0u;
  }
  let begin = i32(params.key_first + key) - params.causal_offset - i32(params.query_first);
  return u32(clamp(begin, 0, i32(params.queries)));
}

// True when not every query of the tile at (query_0, key_0) sees every key: such a tile is tested pair by pair.
fn is_partial(query_0: u32, key_0: u32) -> bool {
  return MASK || query_0 + BLOCK_QUERIES > params.queries || key_0 + BLOCK_KEYS > params.keys ||
      (CAUSAL && key_end(query_0) < key_0 + BLOCK_KEYS);
}

// Dropout factors of a query and of the four keys from `key` on.
fn factors_of(ids: HeadIds, query: u32, key: u32) -> vec4f {
  if (!DROPOUT) {
    return vec4f(1.0);
  }
  return dropout_factors(params.batch_first + ids.batch, params.head_first + ids.head, params.query_first + query,
                         params.key_first + key);
}
