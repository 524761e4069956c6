// A mask as bits, which pack_mask.wgsl makes of the tensor: 32 keys a word, the first in the lowest. Behind every MASK_GROUP
// rows of a head, two words for each of theirs: which keys some of those rows see, and which some do not. So a look at a tile
// reads a word or two, the same for all threads, and needs no barrier. Rows that all queries share stand alone.
//
// Tiles that a mask hides altogether are passed over, and in those that it does not touch nothing is tested pair by pair.

@group(0) @binding(8) var<storage, read> mask: array<u32>; // [B|1,Hq|1,rows and what they are grouped in,words]

const MASK_GROUP = 64u;

// Keys that a look at a tile takes at a time: in one word, but where a window of the keys does not begin with one.
const LOOK_KEYS = min(32u, BLOCK_KEYS & (~BLOCK_KEYS + 1u));

fn mask_head(ids: HeadIds) -> u32 {
  return params.mask.base + ids.batch * params.mask.batch + ids.head * params.mask.head;
}

// The place of a key in its row. A mask of one key is the same for all, and so are the bits of its word.
fn mask_key(key: u32) -> u32 {
  return select(params.key_first + key, 0u, params.mask_keys == 1u);
}

// The bits from that of `key` on, as far as its word has them. Past the last query or word it is the last one's.
fn mask_bits(ids: HeadIds, query: u32, key: u32) -> u32 {
  let row = min(params.query_first + query, params.query_length - 1u);
  let at = mask_key(key);
  return mask[mask_head(ids) + (row + row / MASK_GROUP * 2u) * params.mask.row + min(at, params.mask_keys - 1u) / 32u] >>
      (at % 32u);
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  return (mask_bits(ids, query, key) & 1u) != 0u;
}

// Of the four keys from `key` on, a multiple of 4.
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return (vec4u(mask_bits(ids, query, key)) & vec4u(1u, 2u, 4u, 8u)) != vec4u();
}

// Of a group of rows, from `key` on, as far as the words have them: what some see, and what some do not.
fn group_bits(head: u32, group: u32, key: u32) -> vec2u {
  let at = mask_key(key);
  let word = min(at, params.mask_keys - 1u) / 32u;
  if (params.mask.row == 0u) {
    let bits = mask[head + word];
    return vec2u(bits, ~bits) >> vec2u(at % 32u);
  }
  let rows = min(MASK_GROUP, params.query_length - group * MASK_GROUP);
  let group_at = head + (group * (MASK_GROUP + 2u) + rows) * params.mask.row + 2u * word;
  return vec2u(mask[group_at], mask[group_at + 1u]) >> vec2u(at % 32u);
}

// What the mask does to the tile at (query_0, key_0), as far as its rows' groups tell.
fn look_at_tile(ids: HeadIds, query_0: u32, key_0: u32) -> TileLook {
  let head = mask_head(ids);
  let first_row = params.query_first + query_0;
  let last_group = (min(first_row + BLOCK_QUERIES, params.query_length) - 1u) / MASK_GROUP;
  var found = vec2u();
  for (var key = key_0; key < key_0 + BLOCK_KEYS; key += LOOK_KEYS) {
    let word_has = 32u - (params.key_first + key) % 32u;
    for (var group = first_row / MASK_GROUP; group <= last_group; group++) {
      found |= group_bits(head, group, key);
      if (word_has < LOOK_KEYS) {
        found |= group_bits(head, group, key + word_has) << vec2u(word_has);
      }
    }
  }
  found &= vec2u(0xffffffffu >> (32u - LOOK_KEYS));
  return TileLook(found.x != 0u, found.y != 0u);
}
