// Where the threads of a row meet: in workgroup memory. The same functions as in reduce_subgroup.wgsl.

alias Rows = array<f32, ROWS>;

// For each query of this thread, the largest of what all threads of its row hold. Uses `left`, which is free before and
// after. A NaN may get lost.
fn row_maxima(mine: ptr<function, Rows>, lanes: u32) {
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    left[(g * THREADS_Y + ty) * THREADS_X + tx] =
        vec4f((*mine)[4u * g], (*mine)[4u * g + 1u], (*mine)[4u * g + 2u], (*mine)[4u * g + 3u]);
  }
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    var largest = left[(g * THREADS_Y + ty) * THREADS_X];
    for (var x = 1u; x < THREADS_X; x++) {
      largest = max(largest, left[(g * THREADS_Y + ty) * THREADS_X + x]);
    }
    (*mine)[4u * g] = largest.x;
    (*mine)[4u * g + 1u] = largest.y;
    (*mine)[4u * g + 2u] = largest.z;
    (*mine)[4u * g + 3u] = largest.w;
  }
  workgroupBarrier();
}

// The same for the sum, which keeps a NaN. `left` is not free after it.
fn row_totals(mine: ptr<function, Rows>, lanes: u32) {
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    left[(g * THREADS_Y + ty) * THREADS_X + tx] =
        vec4f((*mine)[4u * g], (*mine)[4u * g + 1u], (*mine)[4u * g + 2u], (*mine)[4u * g + 3u]);
  }
  workgroupBarrier();
  for (var g = 0u; g < ROWS / 4u; g++) {
    var total = left[(g * THREADS_Y + ty) * THREADS_X];
    for (var x = 1u; x < THREADS_X; x++) {
      total += left[(g * THREADS_Y + ty) * THREADS_X + x];
    }
    (*mine)[4u * g] = total.x;
    (*mine)[4u * g + 1u] = total.y;
    (*mine)[4u * g + 2u] = total.z;
    (*mine)[4u * g + 3u] = total.w;
  }
}
