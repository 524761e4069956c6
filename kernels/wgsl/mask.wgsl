// A mask as bits, 32 keys a word, the first in the lowest: [B|1,Hq|1,Nq|1,words], which pack_mask.wgsl makes of the tensor.

@group(0) @binding(8) var<storage, read> mask: array<u32>;

// Keys that a look at a tile takes at a time: in one word, but where a window of the keys does not begin with one.
const LOOK_KEYS = min(32u, BLOCK_KEYS & (~BLOCK_KEYS + 1u));
const LOOKS_OF_ROW = BLOCK_KEYS / LOOK_KEYS;

// The bits from that of `key` on, as far as its word has them: the lowest is the key's. Past the last query or word it is
// the last one's. A mask of one key is the same for all, and so are the bits of its word.
fn mask_bits(ids: HeadIds, query: u32, key: u32) -> u32 {
  let row = params.mask.base + ids.batch * params.mask.batch + min(query, params.queries - 1u) * params.mask.row +
      ids.head * params.mask.head;
  let at = select(params.key_first + key, 0u, params.mask_keys == 1u);
  return mask[row + min(at, params.mask_keys - 1u) / 32u] >> (at % 32u);
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  return (mask_bits(ids, query, key) & 1u) != 0u;
}

// Of the four keys from `key` on, a multiple of 4.
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return (vec4u(mask_bits(ids, query, key)) & vec4u(1u, 2u, 4u, 8u)) != vec4u();
}

// What look n at the tile at (query_0, key_0) finds, row by row: whether the mask shows a pair, and whether it hides one.
fn look_at_row(ids: HeadIds, query_0: u32, key_0: u32, n: u32) -> TileLook {
  let query = query_0 + n / LOOKS_OF_ROW;
  let key = key_0 + n % LOOKS_OF_ROW * LOOK_KEYS;
  var bits = mask_bits(ids, query, key);
  let word_has = 32u - (params.key_first + key) % 32u;
  if (word_has < LOOK_KEYS) {
    bits = insertBits(bits, mask_bits(ids, query, key + word_has), word_has, 32u - word_has);
  }
  let all = 0xffffffffu >> (32u - LOOK_KEYS);
  return TileLook((bits & all) != 0u, (bits & all) != all);
}
