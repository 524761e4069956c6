// Where the threads of a row meet: by subgroup operations as far as a row lies in one subgroup, and by workgroup memory
// for the rest. The same functions as in reduce_workgroup.wgsl.

alias Rows = array<f32, ROWS>;

// For each query of this thread, the largest of what all threads of its row hold. Uses `left`, which is free before and
// after. A NaN may get lost.
fn row_maxima(mine: ptr<function, Rows>, lanes: u32) {
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    var largest = vec4f((*mine)[4u * g], (*mine)[4u * g + 1u], (*mine)[4u * g + 2u], (*mine)[4u * g + 3u]);
    if (lanes == THREADS_X) {
      for (var mask = 1u; mask < THREADS_X; mask *= 2u) {
        largest = max(largest, subgroupShuffleXor(largest, mask));
      }
    } else {
      for (var mask = 1u; mask < lanes; mask *= 2u) {
        largest = max(largest, subgroupShuffleXor(largest, mask));
      }
      share(largest, g, lanes);
      largest = shared_by(0u, g);
      for (var part = 1u; part < THREADS_X / lanes; part++) {
        largest = max(largest, shared_by(part, g));
      }
      workgroupBarrier();
    }
    (*mine)[4u * g] = largest.x;
    (*mine)[4u * g + 1u] = largest.y;
    (*mine)[4u * g + 2u] = largest.z;
    (*mine)[4u * g + 3u] = largest.w;
  }
}

// The same for the sum, which keeps a NaN. `left` is not free after it.
fn row_totals(mine: ptr<function, Rows>, lanes: u32) {
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    var total = vec4f((*mine)[4u * g], (*mine)[4u * g + 1u], (*mine)[4u * g + 2u], (*mine)[4u * g + 3u]);
    if (lanes == THREADS_X) {
      for (var mask = 1u; mask < THREADS_X; mask *= 2u) {
        total += subgroupShuffleXor(total, mask);
      }
    } else {
      for (var mask = 1u; mask < lanes; mask *= 2u) {
        total += subgroupShuffleXor(total, mask);
      }
      share(total, g, lanes);
      total = shared_by(0u, g);
      for (var part = 1u; part < THREADS_X / lanes; part++) {
        total += shared_by(part, g);
      }
    }
    (*mine)[4u * g] = total.x;
    (*mine)[4u * g + 1u] = total.y;
    (*mine)[4u * g + 2u] = total.z;
    (*mine)[4u * g + 3u] = total.w;
  }
}

// What the lanes of a row have in common, for those of its other subgroups.
fn share(value: vec4f, g: u32, lanes: u32) {
  left[(g * THREADS_Y + ty) * THREADS_X + tx / lanes] = value;
  workgroupBarrier();
}

fn shared_by(part: u32, g: u32) -> vec4f {
  return left[(g * THREADS_Y + ty) * THREADS_X + part];
}
