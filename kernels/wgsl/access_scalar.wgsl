// Reading and writing four neighbours along the last axis, for any head size: past the row's end reads give 0 and
// writes are dropped. `at` is the element index of the row's start, `d4` counts vec4s.
// A kernel binds only what it uses.

@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> d_output: array<f32>;
@group(0) @binding(5) var<storage, read> saved_output: array<f32>;
@group(0) @binding(6) var<storage, read_write> result_0: array<f32>;

fn load_q(at: u32, d4: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < HEAD_SIZE) { value[c] = q[at + 4u * d4 + c]; }
  }
  return value;
}

fn load_k(at: u32, d4: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < HEAD_SIZE) { value[c] = k[at + 4u * d4 + c]; }
  }
  return value;
}

fn load_v(at: u32, d4: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < VALUE_SIZE) { value[c] = v[at + 4u * d4 + c]; }
  }
  return value;
}

fn load_d_output(at: u32, d4: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < VALUE_SIZE) { value[c] = d_output[at + 4u * d4 + c]; }
  }
  return value;
}

fn load_saved_output(at: u32, d4: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < VALUE_SIZE) { value[c] = saved_output[at + 4u * d4 + c]; }
  }
  return value;
}

fn load_result_0(at: u32, d4: u32, size: u32) -> vec4f {
  var value = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < size) { value[c] = result_0[at + 4u * d4 + c]; }
  }
  return value;
}

fn store_result_0(at: u32, d4: u32, size: u32, value: vec4f) {
  for (var c = 0u; c < 4u; c++) {
    if (4u * d4 + c < size) { result_0[at + 4u * d4 + c] = value[c]; }
  }
}
