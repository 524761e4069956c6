// Reading and writing four neighbours along the last axis, for head sizes that are multiples of 4.
// `at` is the element index of the row's start, `d4` counts vec4s. A kernel binds only what it uses.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
@group(0) @binding(4) var<storage, read> d_output: array<vec4f>;
@group(0) @binding(5) var<storage, read> saved_output: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> result_0: array<vec4f>;

fn load_q(at: u32, d4: u32) -> vec4f { return q[at / 4u + d4]; }
fn load_k(at: u32, d4: u32) -> vec4f { return k[at / 4u + d4]; }
fn load_v(at: u32, d4: u32) -> vec4f { return v[at / 4u + d4]; }
fn load_d_output(at: u32, d4: u32) -> vec4f { return d_output[at / 4u + d4]; }
fn load_saved_output(at: u32, d4: u32) -> vec4f { return saved_output[at / 4u + d4]; }

fn load_result_0(at: u32, d4: u32, size: u32) -> vec4f { return result_0[at / 4u + d4]; }
fn store_result_0(at: u32, d4: u32, size: u32, value: vec4f) { result_0[at / 4u + d4] = value; }
