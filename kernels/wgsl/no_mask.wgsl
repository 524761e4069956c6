fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool { return true; }
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> { return vec4<bool>(true); }

const LOOKS_OF_ROW = 1u;
fn look_at_row(ids: HeadIds, query_0: u32, key_0: u32, n: u32) -> TileLook { return TileLook(true, false); }
