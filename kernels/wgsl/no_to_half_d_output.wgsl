const HAS_D_OUTPUT = false;

fn d_output_vec4(source: Source, d4: u32) -> vec4f { return vec4f(); }
fn d_lse_bits(at: u32) -> u32 { return 0u; }
fn store_half_d_output(n: u32, halves: vec4u) {}
