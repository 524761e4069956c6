// Tiles that a mask hides altogether are passed over: a look at the mask costs less than the products it saves. In those that
// it does not touch nothing is tested pair by pair.

// What a look found (x: it shows, y: it hides), for every other tile: one is cleared while the other is in use. What a look
// finds there from before (another head's tile, or whatever the memory held) at most lets a tile be tested pair by pair that
// need not be.
var<workgroup> tile_looks: array<vec4u, 2>;

// What the mask does to the tile at (query_0, key_0). The same for the whole workgroup.
fn look_at_tile(ids: HeadIds, query_0: u32, key_0: u32) -> TileLook {
  let turn = (query_0 / BLOCK_QUERIES + key_0 / BLOCK_KEYS) % 2u;
  if (thread == 0u) {
    tile_looks[1u - turn] = vec4u();
  }
  let rows = select(BLOCK_QUERIES, 1u, params.mask.row == 0u); // one for all where they share it
  var shows = false;
  var hides = false;
  for (var n = thread; n < rows * LOOKS_OF_ROW; n += THREADS) {
    let here = look_at_row(ids, query_0, key_0, n);
    shows = shows || here.shows;
    hides = hides || here.hides;
  }
  if (shows) {
    tile_looks[turn].x = 1u;
  }
  if (hides) {
    tile_looks[turn].y = 1u;
  }
  let found = workgroupUniformLoad(&tile_looks[turn]);
  return TileLook(found.x != 0u, found.y != 0u);
}
