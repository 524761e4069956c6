fn table_word(at: u32) -> u32 { return 0u; }
