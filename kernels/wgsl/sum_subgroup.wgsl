// decode: the sums of a row of threads, by subgroup operations as far as it lies in one subgroup.

fn sum_over_lanes(scores: ptr<function, KeyScores>, lanes: u32) {
  if (lanes == THREADS_X) {
    for (var n = 0u; n < SCORES; n++) {
      var sum = (*scores)[n];
      for (var bit = 0u; bit < LANE_BITS; bit++) {
        sum += subgroupShuffleXor(sum, 1u << bit);
      }
      (*scores)[n] = sum;
    }
    return;
  }
  for (var n = 0u; n < SCORES; n++) {
    for (var mask = 1u; mask < lanes; mask *= 2u) {
      (*scores)[n] += subgroupShuffleXor((*scores)[n], mask);
    }
  }
  sum_in_memory(scores, lanes);
}
