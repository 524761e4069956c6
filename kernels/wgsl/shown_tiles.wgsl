// For matrix_forward.wgsl: which tiles of keys a mask shows something of, found while other tiles are worked on. Those that it
// hides altogether are passed over, and where it hides nothing it is not looked at pair by pair.

// What some thread has seen. In NOTES x: a row's sum above; y: that the mask shows a pair of a tile. In hidden_notes x: that it
// hides one; rounds take turns with two of them, so that one is cleared while the other is read. In the padding of rows of
// `sums`, which matrices leave alone (staged rows may not: notes are cleared behind them). Variables of their own would keep
// one workgroup less on a multiprocessor, where 48 KB are all there is.
const NOTES = SUMS_STRIDE - 1u;

fn hidden_notes(turn: u32) -> u32 {
  return NOTES + SUMS_STRIDE * (1u + turn % 2u);
}

fn clear_notes(turn: u32) {
  if (thread == 0u) {
    sums[NOTES] = vec4u();
    sums[hidden_notes(turn)] = vec4u();
  }
}

// What this thread's share of the mask of a tile says.
fn look_at_mask(job: Job, key_0: u32) -> TileLook {
  if (params.mask.row == 0u) { // one row for all
    return look_at_row(job.ids, 0u, key_0, thread % LOOKS_OF_ROW);
  }
  var looked = TileLook();
  for (var n = 0u; n < MASK_TRIPS; n++) {
    let here = look_at_row(job.ids, job.query_0, key_0, (thread + THREADS * n) % (BLOCK_QUERIES * LOOKS_OF_ROW));
    looked = TileLook(looked.shows || here.shows, looked.hides || here.hides);
  }
  return looked;
}

fn note_mask(looked: TileLook, turn: u32) {
  if (looked.shows) {
    sums[NOTES].y = 1u;
  }
  if (looked.hides) {
    sums[hidden_notes(turn)].x = 1u;
  }
}

// The first key of the first tile from `key` on that the mask does not hide altogether; past the last, no less than the keys'
// end. By the whole workgroup; leaves notes to be cleared.
fn shown_from(job: Job, key: u32, turn: u32) -> u32 {
  var key_0 = key;
  var shows = false;
  for (var n = 0u; n < FOREVER; n++) {
    if (shows || key_0 >= job.end) {
      break;
    }
    workgroupBarrier();
    clear_notes(turn);
    workgroupBarrier();
    note_mask(look_at_mask(job, key_0), turn);
    shows = workgroupUniformLoad(&sums[NOTES]).y != 0u;
    key_0 += select(BLOCK_KEYS, 0u, shows);
  }
  return key_0;
}
