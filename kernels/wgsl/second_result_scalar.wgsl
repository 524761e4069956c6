// backward_dkv with both results in buffers of their own.

@group(0) @binding(7) var<storage, read_write> result_1: array<f32>;

fn load_result_1(at: u32, d4: u32, size: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < size) { value[c] = result_1[at + 4u * d4 + c]; }
  }
  return value;
}

fn store_result_1(at: u32, d4: u32, size: u32, value: vec4f) {
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < size) { result_1[at + 4u * d4 + c] = value[c]; }
  }
}
