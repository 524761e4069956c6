// Tiles that a mask hides altogether are passed over: a look at the mask costs less than the products it saves.

// What a look found (x), for every other tile: one is cleared while the other is in use. What a look finds there from before
// (another head's tile, or whatever the memory held) at most lets a tile be tested pair by pair that is hidden.
var<workgroup> tile_is_seen: array<vec4u, 2>;

// Whether the mask shows some query of the tile at (query_0, key_0) some key. The same for the whole workgroup.
fn is_seen(ids: HeadIds, query_0: u32, key_0: u32) -> bool {
  let turn = (query_0 / BLOCK_QUERIES + key_0 / BLOCK_KEYS) % 2u;
  if (thread == 0u) {
    tile_is_seen[1u - turn] = vec4u();
  }
  let rows = select(BLOCK_QUERIES, 1u, params.mask.row == 0u); // one for all where they share it
  var any_seen = false;
  for (var n = thread; n < rows * (BLOCK_KEYS / 4u); n += THREADS) {
    any_seen = any_seen ||
        any(mask_allows_four(ids, query_0 + n / (BLOCK_KEYS / 4u), key_0 + n % (BLOCK_KEYS / 4u) * 4u));
  }
  if (any_seen) {
    tile_is_seen[turn].x = 1u;
  }
  return workgroupUniformLoad(&tile_is_seen[turn]).x != 0u;
}
