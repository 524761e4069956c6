// The head and sequence that a workgroup works on, counted from the start of the window.
struct HeadIds {
  batch: u32,
  head: u32,
  key_head: u32,
  key_batch: u32,
  query_first: u32, // row of its first query, counted from the batch's first
  queries: u32,     // its queries in the window
  query_rows: u32,  // and the rows that are written: in padded tensors those past its end too
  key_first: u32,
  keys: u32,
  key_rows: u32,
  diagonal: i32,
}

fn bounded(at: u32, most: u32) -> u32 {
  return u32(clamp(bitcast<i32>(table_word(at)), 0, i32(most)));
}

// How much of `length` lies in a window of `count` from `first` on.
fn within(length: u32, first: u32, count: u32) -> u32 {
  return min(max(length, first) - first, count);
}

fn head_ids(batch: u32, head: u32) -> HeadIds {
  // The bound keys start at the key head of the window's first query head.
  let key_head = (params.head_first + head) / params.group - params.head_first / params.group;
  if (!SEQUENCES) {
    return HeadIds(batch, head, key_head, batch, 0u, params.queries, params.queries, 0u, params.keys, params.keys,
                   params.diagonal);
  }
  let at = params.sequences_at + 5u * batch;
  let query_first = bounded(at, params.query_total);
  let query_length = bounded(at + 1u, min(params.query_length, params.query_total - query_first));
  let key_first = bounded(at + 2u, params.key_total);
  let key_length = bounded(at + 3u, min(params.key_length, params.key_total - key_first));
  var key_batch = batch;
  if (CACHE) {
    key_batch = bounded(at + 4u, params.key_batches - 1u);
  }
  let queries = within(query_length, params.query_first, params.queries);
  let keys = within(key_length, params.key_first, params.keys);
  return HeadIds(
      batch, head, key_head, key_batch,
      query_first, queries, select(params.queries, queries, END_TO_END),
      key_first, keys, select(params.keys, keys, END_TO_END),
      select(0, i32(key_length) - i32(query_length), params.bottom_right != 0u));
}

struct Place {
  tile: u32,
  head: u32, // counted over the batches, and over the parts of the keys
}

// What the workgroup with this number works on. Workgroups start in the order of their numbers. Where tiles are of
// different length (causal), so many heads go together that they have WAVE tiles, the longest of all of them first: the
// last to start are short then, however few heads there are. More would lose what caches hold of k and v. Where there is a
// ROUND, every other round of so many tiles goes the other way: a multiprocessor that has one of each has as much to do as
// the others.
fn place_of(item: u32, tiles: u32, heads: u32) -> Place {
  if (WAVE == 0u) {
    return Place(item % tiles, item / tiles);
  }
  let most = max(1u, WAVE / tiles);
  let first = item / (tiles * most) * most;
  let together = min(most, heads - first);
  var within = item - first * tiles;
  if (ROUND > 0u) {
    let round = within / max(ROUND, 1u);
    let last = min((round + 1u) * ROUND, tiles * together) - 1u;
    within = select(within, round * ROUND + last - within, round % 2u == 1u);
  }
  return Place(within / together, first + within % together);
}

// Of a bias, whose keys lie `key_stride` apart. Past the last query or key it is the last one's.
fn pair_at(view: View, key_stride: u32, ids: HeadIds, query: u32, key: u32) -> u32 {
  return view.base + ids.batch * view.batch + min(query, params.queries - 1u) * view.row + ids.head * view.head +
      min(key, params.keys - 1u) * key_stride;
}

fn query_at(view: View, ids: HeadIds, query: u32) -> u32 {
  return view.base + ids.batch * view.batch + (ids.query_first + query) * view.row + ids.head * view.head;
}
