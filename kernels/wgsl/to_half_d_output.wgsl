// to_half in the backward pass.

const HAS_D_OUTPUT = true;

@group(0) @binding(11) var<storage, read> d_lse: array<f32>; // [B,Hq,Nq]; read if HAS_LSE_GRADIENT
@group(0) @binding(20) var<storage, read_write> half_d_output: array<vec4u>;

fn d_output_vec4(source: Source, d4: u32) -> vec4f {
  if (!source.valid || d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_d_output(source.at, d4);
}

fn d_lse_bits(at: u32) -> u32 { return bitcast<u32>(d_lse[at]); }
fn store_half_d_output(n: u32, halves: vec4u) { half_d_output[n] = halves; }
