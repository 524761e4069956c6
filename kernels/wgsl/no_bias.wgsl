fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 { return 0.0; }
fn bias_of_four(ids: HeadIds, query: u32, key: u32) -> vec4f { return vec4f(); }
