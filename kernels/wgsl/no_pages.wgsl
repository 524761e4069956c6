fn key_at(view: View, ids: HeadIds, key: u32) -> u32 {
  return view.base + ids.key_batch * view.batch + (ids.key_first + key) * view.row + ids.key_head * view.head;
}
