@group(0) @binding(8) var<storage, read> mask: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

fn mask_at(ids: HeadIds, query: u32, key: u32) -> i32 {
  return mask[pair_at(params.mask, params.mask_key, ids, query, key)];
}

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  return mask_at(ids, query, key) != 0;
}

// Of the four keys from `key` on, a multiple of 4.
fn mask_allows_four(ids: HeadIds, query: u32, key: u32) -> vec4<bool> {
  return vec4i(mask_at(ids, query, key), mask_at(ids, query, key + 1u), mask_at(ids, query, key + 2u),
               mask_at(ids, query, key + 3u)) != vec4i();
}
