// mask.wgsl, read four keys at a time: rows of a multiple of 4 keys.

@group(0) @binding(8) var<storage, read> mask: array<vec4i>;

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  let at = pair_at(params.mask, 1u, ids, query, key);
  return mask[at / 4u][at % 4u] != 0;
}

fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return mask[pair_at(params.mask, 1u, ids, query, key) / 4u] != vec4i();
}
