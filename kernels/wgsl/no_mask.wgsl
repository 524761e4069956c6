fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool { return true; }
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> { return vec4<bool>(true); }
fn look_at_tile(ids: HeadIds, query_0: u32, key_0: u32) -> TileLook { return TileLook(true, false); }
