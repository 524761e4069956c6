@group(0) @binding(8) var<storage, read> mask: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

fn mask_place(ids: HeadIds, query: u32, key: u32) -> u32 {
  return params.mask.base + ids.batch * params.mask.batch + min(query, params.queries - 1u) * params.mask.row +
      ids.head * params.mask.head + min(key, params.keys - 1u) * params.mask_key;
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  return mask[mask_place(ids, query, key)] != 0;
}

// Of the four keys from `key` on, a multiple of 4.
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return vec4i(
      mask[mask_place(ids, query, key)], mask[mask_place(ids, query, key + 1u)],
      mask[mask_place(ids, query, key + 2u)], mask[mask_place(ids, query, key + 3u)]) != vec4i();
}
