// backward_dkv with both results in buffers of their own.

@group(0) @binding(7) var<storage, read_write> result_1: array<vec4f>;

fn load_result_1(at: u32, d4: u32, size: u32) -> vec4f { return result_1[at / 4u + d4]; }
fn store_result_1(at: u32, d4: u32, size: u32, value: vec4f) { result_1[at / 4u + d4] = value; }
