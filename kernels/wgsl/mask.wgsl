// A mask as bits, which pack_mask.wgsl makes of the tensor: 32 keys a word, the first in the lowest. Before every MASK_GROUP rows
// of a head there is a word for each of theirs that tells of eight keys at a time whether some row sees one (from bit 0 on)
// and whether some does not (from bit 16 on). So a look at a tile reads a word or two, the same for all threads, and needs no
// barrier.
//
// Tiles that a mask hides altogether are passed over, and in those that it does not touch nothing is tested pair by pair.

@group(0) @binding(8) var<storage, read> mask: array<u32>; // [B|1,Hq|1,groups and their rows,words]

// Keys that a look at a tile takes at a time: of one word.
const LOOK_KEYS = min(32u, BLOCK_KEYS & (~BLOCK_KEYS + 1u));
const LOOK_BITS = (1u << ((LOOK_KEYS + 7u) / 8u)) - 1u;
// Groups that a tile's queries may lie in.
const LOOK_GROUPS = select(
    (BLOCK_QUERIES + 2u * MASK_GROUP - 2u) / MASK_GROUP, (BLOCK_QUERIES + MASK_GROUP - 1u) / MASK_GROUP,
    MASK_GROUP % BLOCK_QUERIES == 0u || BLOCK_QUERIES % MASK_GROUP == 0u);

fn mask_head(ids: HeadIds) -> u32 {
  return params.mask.base + ids.batch * params.mask.batch + ids.head * params.mask.head;
}

// The place of a key in its row. A mask of one key is the same for all, and so are the bits of its word.
fn mask_key(key: u32) -> u32 {
  return select(params.key_first + key, 0u, params.mask_keys == 1u);
}

// The word of that place; past the last the last one.
fn mask_word(at: u32) -> u32 {
  return min(at, params.mask_keys - 1u) / 32u;
}

// The bits from that of `key` on, as far as its word has them. Past the last query it is the last one's.
fn mask_bits(ids: HeadIds, query: u32, key: u32) -> u32 {
  let row = min(params.query_first + query, params.query_length - 1u);
  let row_at = mask_head(ids) + (row + row / MASK_GROUP) * params.mask.row + (params.mask_keys + 31u) / 32u;
  let at = mask_key(key);
  return mask[row_at + mask_word(at)] >> (at % 32u);
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  return (mask_bits(ids, query, key) & 1u) != 0u;
}

// Of the four keys from `key` on, a multiple of 4.
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return (vec4u(mask_bits(ids, query, key)) & vec4u(1u, 2u, 4u, 8u)) != vec4u();
}

// What the mask does to the tile at (query_0, key_0), as far as what is known of its rows' groups tells: nothing where a
// device limit cuts queries or keys within a group or a word.
fn look_at_tile(ids: HeadIds, query_0: u32, key_0: u32) -> TileLook {
  if (params.query_first % MASK_GROUP + params.key_first % 32u > 0u) {
    return TileLook(true, true);
  }
  var found = 0u;
  for (var g = 0u; g < LOOK_GROUPS; g++) {
    let group = min((params.query_first + query_0) / MASK_GROUP + g, (params.query_length - 1u) / MASK_GROUP);
    let group_at = mask_head(ids) + group * (MASK_GROUP + 1u) * params.mask.row;
    for (var n = 0u; n < BLOCK_KEYS / LOOK_KEYS; n++) {
      found |= mask[group_at + mask_word(mask_key(key_0 + n * LOOK_KEYS))];
    }
  }
  found >>= mask_key(key_0) % 32u / 8u;
  return TileLook((found & LOOK_BITS) != 0u, ((found >> 16u) & LOOK_BITS) != 0u);
}
