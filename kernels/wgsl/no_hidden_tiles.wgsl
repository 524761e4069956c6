fn is_seen(ids: HeadIds, query_0: u32, key_0: u32) -> bool { return true; }
