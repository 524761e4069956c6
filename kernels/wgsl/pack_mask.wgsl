// A mask tensor as bits (mask.wgsl): every kernel reads a 32nd of it, however many heads share it, and those of the backward
// pass read it again. Rows are those of all queries, heads and batches that the mask has, one after the other.
//
// A workgroup makes THREADS words. Threads that lie side by side read fours of keys that do.

@group(0) @binding(8) var<storage, read_write> mask: array<u32>;
@group(0) @binding(9) var<storage, read> mask_tensor: array<i32>; // bool as tfjs keeps it on WebGPU: one i32 each

var<workgroup> fours: array<u32, 8u * THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let words_of_row = (params.keys + 31u) / 32u;
  let words = params.queries * words_of_row;
  let first = (group_id.x + group_id.y * groups.x) * THREADS;
  for (var trip = 0u; trip < 8u; trip++) {
    let four = index + trip * THREADS;
    let word = min(first + four / 8u, words - 1u);
    let row = params.mask_tensor.base + word / words_of_row * params.mask_tensor.row;
    let key = word % words_of_row * 32u + four % 8u * 4u;
    var bits = 0u;
    for (var n = 0u; n < 4u; n++) {
      // What a word has beyond the last key says what it says of that.
      bits |= select(0u, 1u << n, mask_tensor[row + min(key + n, params.keys - 1u)] != 0);
    }
    fours[four] = bits << (four % 8u * 4u);
  }
  workgroupBarrier();
  var bits = 0u;
  for (var n = 0u; n < 8u; n++) {
    bits |= fours[8u * index + n];
  }
  let word = first + index;
  if (word < words) {
    mask[(params.query_first + word / words_of_row) * ((params.mask_keys + 31u) / 32u) + params.key_first / 32u +
         word % words_of_row] = bits;
  }
}
