// Before to_half: nothing has been seen yet. (Buffers that tfjs hands out hold what was in them.)

@group(0) @binding(16) var<storage, read_write> largest: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) index: u32) {
  // All kernels bind params; there are heads wherever there is something to do.
  if (index < arrayLength(&largest) && params.heads > 0u) {
    largest[index] = 0u;
  }
}
