// Tiles that a mask hides altogether are passed over: a look at the mask costs less than the products it saves.

// The first of each. Whole 16 bytes: see matrix.wgsl.
var<workgroup> seen_by_any: array<atomic<u32>, 4>;
var<workgroup> tile_is_seen: vec4u;

// Whether the mask shows some query of the tile at (query_0, key_0) some key. The same for the whole workgroup.
fn is_seen(ids: HeadIds, query_0: u32, key_0: u32) -> bool {
  workgroupBarrier();
  if (thread == 0u) {
    atomicStore(&seen_by_any[0], 0u);
  }
  workgroupBarrier();
  let rows = select(BLOCK_QUERIES, 1u, params.mask.row == 0u); // one for all where they share it
  var any_seen = false;
  for (var n = thread; n < rows * (BLOCK_KEYS / 4u); n += THREADS) {
    any_seen = any_seen ||
        any(mask_allows_four(ids, query_0 + n / (BLOCK_KEYS / 4u), key_0 + n % (BLOCK_KEYS / 4u) * 4u));
  }
  if (any_seen) {
    atomicStore(&seen_by_any[0], 1u);
  }
  workgroupBarrier();
  if (thread == 0u) {
    tile_is_seen.x = atomicLoad(&seen_by_any[0]);
  }
  return workgroupUniformLoad(&tile_is_seen).x != 0u;
}
