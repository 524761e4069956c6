// bias.wgsl, read four keys at a time: rows of a multiple of 4 keys.

@group(0) @binding(13) var<storage, read> bias: array<vec4f>;

fn bias_place(ids: HeadIds, query: u32, key: u32) -> u32 {
  return params.bias.base + ids.batch * params.bias.batch + min(query, params.queries - 1u) * params.bias.row +
      ids.head * params.bias.head + min(key, params.keys - 1u);
}

fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 {
  let at = bias_place(ids, query, key);
  return bias[at / 4u][at % 4u];
}

fn bias_of_four(ids: HeadIds, query: u32, key: u32) -> vec4f {
  return bias[bias_place(ids, query, key) / 4u];
}
