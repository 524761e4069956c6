@group(0) @binding(13) var<storage, read> bias: array<f32>;

fn bias_at(ids: HeadIds, query: u32, key: u32) -> f32 {
  let row = min(query, params.queries - 1u);
  let at = params.bias.base + ids.batch * params.bias.batch + row * params.bias.row + ids.head * params.bias.head;
  return bias[at + min(key, params.keys - 1u) * params.bias_key];
}
