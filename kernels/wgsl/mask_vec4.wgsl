// mask.wgsl, read four keys at a time: rows of a multiple of 4 keys.

@group(0) @binding(8) var<storage, read> mask: array<vec4i>;

fn mask_place(ids: HeadIds, query: u32, key: u32) -> u32 {
  return params.mask.base + ids.batch * params.mask.batch + min(query, params.queries - 1u) * params.mask.row +
      ids.head * params.mask.head + min(key, params.keys - 1u);
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  let at = mask_place(ids, query, key);
  return mask[at / 4u][at % 4u] != 0;
}

fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return mask[mask_place(ids, query, key) / 4u] != vec4i();
}
