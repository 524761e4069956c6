// A mask tensor as bits (mask.wgsl): kernels read a 32nd of it, however many heads share it, and those of the backward pass
// read it again.
//
// A workgroup makes a word of MASK_GROUP rows, as many as it has threads. Threads that lie side by side read fours of keys that do.

@group(0) @binding(8) var<storage, read_write> mask: array<u32>;
@group(0) @binding(9) var<storage, read> mask_tensor: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

const FOURS = 8u; // of a word

var<workgroup> fours: array<u32, FOURS * MASK_GROUP>;
var<workgroup> found: array<atomic<u32>, 2>; // what some row sees, and what some does not

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let words = (params.keys + 31u) / 32u;
  let row_groups = (params.queries + MASK_GROUP - 1u) / MASK_GROUP;
  let item = group_id.x + group_id.y * groups.x;
  let word = item % words;
  let row_group = item / words % row_groups;
  let head = item / words / row_groups % params.heads;
  let batch = item / words / row_groups / params.heads;
  if (batch >= params.batches) {
    return;
  }
  let first_row = row_group * MASK_GROUP;
  let rows = min(MASK_GROUP, params.queries - first_row);
  for (var first = 0u; first < rows; first += MASK_GROUP / FOURS) {
    let row = first + index / FOURS;
    let at = params.mask_tensor.base + batch * params.mask_tensor.batch + head * params.mask_tensor.head +
        (first_row + min(row, rows - 1u)) * params.mask_tensor.row;
    let key = word * 32u + index % FOURS * 4u;
    var bits = 0u;
    for (var n = 0u; n < 4u; n++) {
      // What a word has beyond the last key says what it says of that.
      bits |= select(0u, 1u << n, mask_tensor[at + min(key + n, params.keys - 1u)] != 0);
    }
    fours[row * FOURS + index % FOURS] = bits << (index % FOURS * 4u);
  }
  workgroupBarrier();
  let words_of_row = (params.mask_keys + 31u) / 32u;
  let group = params.query_first / MASK_GROUP + row_group;
  let group_at = params.mask.base + batch * params.mask.batch + head * params.mask.head +
      group * (MASK_GROUP + 1u) * words_of_row + params.key_first / 32u + word;
  if (index < rows) {
    var bits = 0u;
    for (var n = 0u; n < FOURS; n++) {
      bits |= fours[index * FOURS + n];
    }
    mask[group_at + (1u + index) * words_of_row] = bits;
    atomicOr(&found[0], bits);
    atomicOr(&found[1], ~bits);
  }
  workgroupBarrier();
  if (index == 0u) {
    var looks = 0u;
    for (var n = 0u; n < 4u; n++) {
      let eight = 255u << (8u * n);
      looks |= select(0u, 1u << n, (atomicLoad(&found[0]) & eight) != 0u);
      looks |= select(0u, 0x10000u << n, (atomicLoad(&found[1]) & eight) != 0u);
    }
    mask[group_at] = looks;
  }
}
