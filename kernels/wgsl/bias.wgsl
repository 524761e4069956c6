@group(0) @binding(13) var<storage, read> bias: array<f32>;

fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 {
  return bias[pair_at(params.bias, params.bias_key, ids, query, key)];
}

// Of the four keys from `key` on, a multiple of 4.
fn bias_of_four(ids: HeadIds, query: u32, key: u32) -> vec4f {
  return vec4f(bias_at(ids, query, key), bias_at(ids, query, key + 1u), bias_at(ids, query, key + 2u),
               bias_at(ids, query, key + 3u));
}
