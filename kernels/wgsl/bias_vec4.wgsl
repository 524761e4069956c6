// bias.wgsl, read four keys at a time: rows of a multiple of 4 keys.

@group(0) @binding(13) var<storage, read> bias: array<vec4f>;

fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 {
  let at = pair_at(params.bias, 1u, ids, query, key);
  return bias[at / 4u][at % 4u];
}

fn bias_of_four(ids: HeadIds, query: u32, key: u32) -> vec4f {
  return bias[pair_at(params.bias, 1u, ids, query, key) / 4u];
}
