// k and v lie in pages [pages,page size,Hkv,D]; which page holds the keys from n·page_size on says block_table [B,pages].

@group(0) @binding(14) var<storage, read> block_table: array<i32>;

fn key_at(view: View, ids: HeadIds, key: u32) -> u32 {
  let row = ids.key_first + key;
  let entry = (params.batch_first + ids.batch) * params.pages + min(row / params.page_size, params.pages - 1u);
  let page = u32(clamp(block_table[entry], 0, i32(params.key_batches) - 1));
  return view.base + page * view.batch + row % params.page_size * view.row + ids.key_head * view.head;
}
