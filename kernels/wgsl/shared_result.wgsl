// backward_dkv with one buffer for what it makes: only dK or dV is wanted, or both lie side by side in a packed gradient.
// WebGPU lets no buffer be bound twice for writing.

fn load_result_1(at: u32, d4: u32, size: u32) -> vec4f { return load_result_0(at, d4, size); }
fn store_result_1(at: u32, d4: u32, size: u32, value: vec4f) { store_result_0(at, d4, size, value); }
