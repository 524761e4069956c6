fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 { return 0.0; }
