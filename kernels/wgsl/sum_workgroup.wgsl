// decode: the sums of a row of threads, in workgroup memory. sum_subgroup.wgsl has the other way.

fn sum_over_lanes(scores: ptr<function, KeyScores>, lanes: u32) {
  sum_in_memory(scores, 1u);
}
