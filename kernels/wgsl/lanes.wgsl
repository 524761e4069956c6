// The entry point of kernels whose threads meet in subgroups: how many neighbours of a row can.

var<workgroup> fewest_lanes: atomic<u32>;
var<workgroup> common_lanes: u32;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32, @builtin(subgroup_size) size: u32) {
  if (is_for_this_kernel()) {
    run_workgroup(group_id, groups, index, lanes_of_row(index, size));
  }
}

// How many neighbouring threads, a power of two up to THREADS_X, hand each other values by subgroupShuffleXor: thread t
// the one of t ^ 1, t ^ 2 and so on. WGSL does not say which threads make a subgroup, so they ask each other who they
// are. The same for the whole workgroup; 1 where subgroups are of no use.
fn lanes_of_row(index: u32, size: u32) -> u32 {
  var lanes = 1u;
  for (var mask = 1u; mask < THREADS_X; mask *= 2u) {
    let other = subgroupShuffleXor(index, mask);
    if (lanes == mask && mask < size && other == (index ^ mask)) {
      lanes = 2u * mask;
    }
  }
  if (index == 0u) {
    atomicStore(&fewest_lanes, THREADS_X);
  }
  workgroupBarrier();
  atomicMin(&fewest_lanes, lanes);
  workgroupBarrier();
  if (index == 0u) {
    common_lanes = atomicLoad(&fewest_lanes);
  }
  return workgroupUniformLoad(&common_lanes);
}
