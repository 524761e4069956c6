// The entry point of kernels whose threads meet in workgroup memory alone; lanes.wgsl has the other.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  if (is_for_this_kernel()) {
    run_workgroup(group_id, groups, index, 1u);
  }
}
