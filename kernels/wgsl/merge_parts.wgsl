// What merge_splits and merge_rows share. saved_output holds the parts [splits, …output], result_0 becomes the output.

@group(0) @binding(9) var<storage, read_write> lse: array<f32>;       // [B,Hq,Nq]
@group(0) @binding(10) var<storage, read_write> lse_tail: array<f32>; // the same
@group(0) @binding(11) var<storage, read> part_lse: array<f32>;       // [splits,B,Hq,Nq]
@group(0) @binding(12) var<storage, read> part_tail: array<f32>;      // the same

// Parts whose loads are in flight at once, of a slot or a thread.
const AT_ONCE = 4u;

// exp(LSE of a part − the largest); 0 where the part saw no key, NaN where its LSE is NaN.
fn part_weight(row: u32, s: u32, largest: f32) -> f32 {
  let part = part_lse[row + s * params.split_rows];
  let tail = part_tail[row + s * params.split_rows]; // not after a test: both loads are in flight at once
  return select(exp_or_nan(vec4f(part - largest + tail)).x, 0.0, part < NOT_SEEN);
}

// A vec4 of the row, and with the first its LSE. `total` and `sum` are those of all parts.
fn store_merged(ids: HeadIds, query: u32, d4: u32, largest: f32, total: f32, sum: vec4f) {
  let empty = total == 0.0;
  store_result_0(query_at(params.output, ids, query), d4, VALUE_SIZE, select(sum / total, vec4f(), empty));
  if (d4 == 0u) {
    // As in the forward kernel: the sum of two floats and its exact rest.
    let row = query_at(params.rows, ids, query);
    let log_total = log_or_nan(total);
    let log_sum = largest + log_total;
    lse[row] = select(log_sum, negative_infinity(), empty);
    lse_tail[row] = select(rounding_error(largest, log_total), 0.0, empty);
  }
}
