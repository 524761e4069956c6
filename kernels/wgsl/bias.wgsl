@group(0) @binding(13) var<storage, read> bias: array<f32>;

fn bias_place(ids: HeadIds, query: u32, key: u32) -> u32 {
  return params.bias.base + ids.batch * params.bias.batch + min(query, params.queries - 1u) * params.bias.row +
      ids.head * params.bias.head + min(key, params.keys - 1u) * params.bias_key;
}

fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 {
  return bias[bias_place(ids, query, key)];
}

// Of the four keys from `key` on, a multiple of 4.
fn bias_of_four(ids: HeadIds, query: u32, key: u32) -> vec4f {
  return vec4f(bias_at(ids, query, key), bias_at(ids, query, key + 1u), bias_at(ids, query, key + 2u),
               bias_at(ids, query, key + 3u));
}
