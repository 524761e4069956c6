@group(0) @binding(8) var<storage, read> mask: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

fn mask_allows(ids: HeadIds, query: u32, key: u32) -> bool {
  let row = min(query, params.queries - 1u);
  let at = params.mask.base + ids.batch * params.mask.batch + row * params.mask.row + ids.head * params.mask.head;
  return mask[at + min(key, params.keys - 1u) * params.mask_key] != 0;
}
