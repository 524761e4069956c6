// What each head or sequence has of its own, gathered by the host from the call's tensors: ALiBi slopes, sinks, sequences.

@group(0) @binding(15) var<uniform> table: array<vec4u, TABLE_VEC4>;

fn table_word(at: u32) -> u32 {
  return table[at / 4u][at % 4u];
}
