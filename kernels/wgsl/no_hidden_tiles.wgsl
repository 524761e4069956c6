fn look_at_tile(ids: HeadIds, query_0: u32, key_0: u32) -> TileLook { return TileLook(true, false); }
