// Makes again what matrix_forward.wgsl could not, by matrix_watch.wgsl: tiles of which a row has an LSE of NaN, and all of them
// where f16 does not hold q, k or v as they are. So a call whose copies f16 holds, as it holds most, needs no second pass of
// to_half.

// Whether matrix_forward left row n of this job's to do.
fn is_row_left(job: Job, n: u32) -> bool {
  let query = job.query_0 + n;
  if (query >= job.ids.query_rows) {
    return false;
  }
  return is_nan(lse[query_at(params.rows, job.ids, query) + job.split * params.split_rows]);
}

// Whether it left any. The same for the whole workgroup.
fn is_left(job: Job) -> bool {
  var left = vec4u();
  for (var n = thread; n < BLOCK_QUERIES; n += THREADS) {
    left.w = max(left.w, select(0u, 1u, is_row_left(job, n)));
  }
  return largest_of_all(left).w != 0u;
}

// The same of every `step`-th job from `first` on, in w, without a barrier for each; and what to_half noted.
fn what_is_left(first: u32, step: u32, all: u32) -> vec4u {
  var left = notes_of_thread();
  for (var n = thread; first + n / BLOCK_QUERIES * step < all; n += THREADS) {
    let job = job_of(first + n / BLOCK_QUERIES * step);
    if (job.exists && is_row_left(job, n % BLOCK_QUERIES)) {
      left.w = 1u;
    }
  }
  return largest_of_all(left);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  start_thread(index);
  let workgroup = group_id.x + group_id.y * groups.x;
  let workgroups = groups.x * groups.y;
  let all = (params.queries + BLOCK_QUERIES - 1u) / BLOCK_QUERIES * params.heads * params.batches * params.splits;
  let left = what_is_left(workgroup, workgroups, all);
  if (left.w == 0u && !divides(left)) {
    return;
  }
  set_exponents(left);
  for (var item = workgroup; item < all; item += workgroups) {
    let job = job_of(item);
    if (job.exists && (divides(left) || is_left(job))) {
      watch(job);
    }
  }
}
