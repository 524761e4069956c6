fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool { return true; }
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> { return vec4<bool>(true); }
