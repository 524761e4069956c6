// q, k, v and dO as f16 for subgroup matrices: [B,H,rows,D'] in vec4u of eight halves, D' the head size rounded up with
// zeros. Rows past a sequence's end are 0, and there are enough of them for any tile that begins before it. Sequences that
// lie end to end stay so ([H,rows,D']); a cache is unpacked into the sequences' own order.
//
// `largest` holds the bits of the largest finite |element| of q, k, v, dO and dLSE, and of the largest of all, finite or not:
// in its first eight words, of which LOOKS are used, those of all workgroups of to_half, by its second pass; then for each of
// LOOKS those of every workgroup of the first. A tensor whose elements f16 could not hold well is divided by a power of two.
// An infinity or a NaN must reach only what sees it: it makes calls run by the kernels that multiply pair by pair
// (finite.wgsl). matrix_forward.wgsl takes all as it is, and leaves what comes of that to matrix_watch.wgsl: for it there
// is no second pass.

// Split operands (SPLIT_OPERANDS): a row is followed by what rounding took from it, as f16 too: together 23 bits. For the
// rests not to be subnormal the power of two brings every tensor's largest element to 2^14 and more; elements 2^16 times
// smaller still have all their bits.

const HALF_ROWS = 128u; // of a workgroup of to_half; tiles have no more

const Q = 0u;
const K = 1u;
const V = 2u;
const D_OUTPUT = 3u;
const D_LSE = 4u;
const ALL = 5u;
const LOOKS = 6u; // at the tensors, and at all of them
const LARGEST_TOTALS = 8u; // words
const TURNING_WORKGROUPS = 2048u; // of to_half's first pass, at most

// Rows of a head: whole tiles, wherever they begin. Those of split operands need not divide HALF_ROWS.
fn half_rows(length: u32, total: u32) -> u32 {
  return (select(length, total, END_TO_END) + HALF_ROWS - 1u) / HALF_ROWS * HALF_ROWS +
      select(0u, HALF_ROWS, END_TO_END || SPLIT_OPERANDS);
}

// Groups of HALF_ROWS rows of q or dO, and of k or v: as many as workgroups that turn one each.
fn query_groups() -> u32 {
  return select(params.batches, 1u, END_TO_END) * params.heads * (half_rows(params.queries, params.query_total) / HALF_ROWS);
}

fn key_groups() -> u32 {
  return select(params.batches, 1u, END_TO_END) * (params.heads / params.heads_per_key) *
      (half_rows(params.keys, params.key_total) / HALF_ROWS);
}

// Of q, k and v.
fn forward_groups() -> u32 {
  return query_groups() + 2u * key_groups();
}

fn half_query_row(ids: HeadIds, query: u32) -> u32 {
  let rows = half_rows(params.queries, params.query_total);
  if (END_TO_END) {
    return ids.head * rows + ids.query_first + query;
  }
  return (ids.batch * params.heads + ids.head) * rows + query;
}

fn half_key_row(ids: HeadIds, key: u32) -> u32 {
  let rows = half_rows(params.keys, params.key_total);
  if (END_TO_END) {
    return ids.key_head * rows + ids.key_first + key;
  }
  return (ids.batch * (params.heads / params.heads_per_key) + ids.key_head) * rows + key;
}

// An exponent above that of the number with these bits (a positive float): |x| < 2^e.
fn exponent_above(bits: u32) -> i32 {
  return i32(bits >> 23u) - 126;
}

// The power of two that a tensor is divided by: none while its largest element lies between 2^-6 and 2^14.
fn half_exponent(bits: u32) -> i32 {
  let exponent = exponent_above(bits);
  if (SPLIT_OPERANDS) {
    return select(max(exponent - 15, -100), 0, bits == 0u);
  }
  return select(max(exponent - 8, -100), 0, bits == 0u || (exponent > -6 && exponent <= 14));
}

// Where workgroup n of the first pass leaves what it saw.
fn largest_place(look: u32, n: u32) -> u32 {
  return LARGEST_TOTALS + look * TURNING_WORKGROUPS + n;
}

fn power_of_two(exponent: i32) -> f32 {
  return bitcast<f32>(u32(clamp(exponent, -126, 127) + 127) << 23u);
}
