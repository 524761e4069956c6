// What the backward kernels on subgroup matrices share. Two sides, of PARTS subgroups each, share STRIPS strips of MATRIX_M
// rows of the result: side 0 multiplies q and k, side 1 dO and v. Each has its operand's rows of the strips in registers,
// and goes through the rows of the other operand, tiles of BLOCK_ROWS in workgroup memory. The products of both meet in
// `sums`, in an area of each side and strip, and P and dS in f16 go behind them all (PAIRS_AT), or take their place (IN_PLACE).
// So neither side holds operands of both products, and the result is divided among them too: half as many registers as one
// subgroup would need.
//
// Sides alternate: subgroup % 2 is a subgroup's side, and GROUP subgroups in a row share strips.
//
// Where D and Dv differ, the rows of the smaller are filled up with zeros.
//
// Split operands (half.wgsl): rows of tiles and of P and dS are followed by their rests, and of a product of two such sums
// three are made, as in matrix_forward_split.wgsl. Scores must be those of that kernel to the last bit, so the small products
// are added in its order, q by rests of k first. dS of most pairs lies far below the largest that it could be: so that f16
// holds their rests too, those of P and dS are multiplied by 2^11, and what they are multiplied by is divided by it. One
// column of matrices a tile leaves them, in turn, for what they truncate not to add up: lanes add it to what they hold of it.

// Of side 0, then of side 1.
var<workgroup> tiles: array<vec4h, 2u * TILE_LENGTH>;

const OPERAND_STEPS = OPERAND_PARTS * STEPS;
const REST_FACTOR = 2048.0;
const REST_STEPS = OPERAND_STEPS - STEPS; // to the rests of an operand
const GROUP = 2u * PARTS;
const PART_VEC8 = TILE_VEC8 / OPERAND_PARTS; // of a row of a tile, without its rests
const STAGED_VEC8 = STAGED_STEPS * MATRIX_K / 8u;

// A lane's share of a subgroup's rows of the strips on their way into matrices, through `sums` (matrix_rows.wgsl says why),
// STAGED_STEPS steps of them at a time. All are loaded before the first barrier.
alias Staged = array<vec4u, PASSES * STRIPS * STAGED_TRIPS>;

// Eight halves of a row of q (side 0) or dO (side 1).
fn query_vec8(row: u32, d8: u32) -> vec4u {
  if (subgroup % 2u == 0u) {
    if (HEAD_VEC8 == TILE_VEC8) {
      return half_q[row * HEAD_VEC8 + d8];
    }
    if (d8 % PART_VEC8 < HEAD_REST) {
      return half_q[row * HEAD_VEC8 + d8 / PART_VEC8 * HEAD_REST + d8 % PART_VEC8];
    }
  } else if (VALUE_VEC8 == TILE_VEC8) {
    return half_d_output[row * VALUE_VEC8 + d8];
  } else if (d8 % PART_VEC8 < VALUE_REST) {
    return half_d_output[row * VALUE_VEC8 + d8 / PART_VEC8 * VALUE_REST + d8 % PART_VEC8];
  }
  return vec4u();
}

// The same of k and v.
fn key_vec8(row: u32, d8: u32) -> vec4u {
  if (subgroup % 2u == 0u) {
    if (HEAD_VEC8 == TILE_VEC8) {
      return half_k[row * HEAD_VEC8 + d8];
    }
    if (d8 % PART_VEC8 < HEAD_REST) {
      return half_k[row * HEAD_VEC8 + d8 / PART_VEC8 * HEAD_REST + d8 % PART_VEC8];
    }
  } else if (VALUE_VEC8 == TILE_VEC8) {
    return half_v[row * VALUE_VEC8 + d8];
  } else if (d8 % PART_VEC8 < VALUE_REST) {
    return half_v[row * VALUE_VEC8 + d8 / PART_VEC8 * VALUE_REST + d8 % PART_VEC8];
  }
  return vec4u();
}

// A lane's share of a subgroup's strips, which begin with this key or query.
fn fetch_staged(ids: HeadIds, strip: u32) -> Staged {
  var staged: Staged;
  for (var p = 0u; p < PASSES; p++) {
    for (var r = 0u; r < STRIPS; r++) {
      for (var n = 0u; n < STAGED_TRIPS; n++) {
        let row = MATRIX_M * r + (lane + LANES * n) / STAGED_VEC8;
        let d8 = p * STAGED_VEC8 + (lane + LANES * n) % STAGED_VEC8;
        if (STRIPS_ARE_KEYS) {
          staged[(p * STRIPS + r) * STAGED_TRIPS + n] = key_vec8(half_key_row(ids, strip) + row, d8);
        } else {
          staged[(p * STRIPS + r) * STAGED_TRIPS + n] = query_vec8(half_query_row(ids, strip) + row, d8);
        }
      }
    }
  }
  return staged;
}

// Pass p of what has been fetched, into the subgroup's areas.
fn stage(staged: ptr<function, Staged>, p: u32) {
  for (var r = 0u; r < STRIPS; r++) {
    for (var n = 0u; n < STAGED_TRIPS; n++) {
      let at = lane % LANES + LANES * n;
      if (at / STAGED_VEC8 < MATRIX_M) {
        let area = ((subgroup % SUBGROUPS / GROUP * 2u + subgroup % 2u) * STRIPS + r) * AREA;
        sums[area + subgroup % GROUP / 2u * (AREA / PARTS) + at / STAGED_VEC8 * SUMS_STRIDE + at % STAGED_VEC8] =
            (*staged)[(p * STRIPS + r) * STAGED_TRIPS + n];
      }
    }
  }
}

// A thread's share of its side's tile, on the way from global memory: vec4us SIDE_THREADS apart.
alias Fetch = array<vec4u, TILE_TRIPS>;

const SIDE_THREADS = THREADS / 2u;

// The tile that begins with this key or query.
fn fetch_tile(ids: HeadIds, begin: u32) -> Fetch {
  var fetched: Fetch;
  let first = (subgroup / GROUP * PARTS + subgroup % GROUP / 2u) * LANES + lane;
  for (var n = 0u; n < TILE_TRIPS; n++) {
    let row = (first + SIDE_THREADS * n) / TILE_VEC8;
    let d8 = (first + SIDE_THREADS * n) % TILE_VEC8;
    if (STRIPS_ARE_KEYS) {
      fetched[n] = query_vec8(half_query_row(ids, begin) + row, d8);
    } else {
      fetched[n] = key_vec8(half_key_row(ids, begin) + row, d8);
    }
  }
  return fetched;
}

fn store_tile(fetched: ptr<function, Fetch>) {
  for (var n = 0u; n < TILE_TRIPS; n++) {
    let at = (subgroup % SUBGROUPS / GROUP * PARTS + subgroup % GROUP / 2u) * LANES + lane % LANES + SIDE_THREADS * n;
    if (TILE_EXACT || at / TILE_VEC8 < BLOCK_ROWS) {
      let to = subgroup % 2u * TILE_LENGTH + at / TILE_VEC8 * TILE_STRIDE + 2u * (at % TILE_VEC8);
      tiles[to] = bitcast<vec4h>((*fetched)[n].xy);
      tiles[to + 1u] = bitcast<vec4h>((*fetched)[n].zw);
    }
  }
}

// What a subgroup sums: its columns of its strips. A lane's share of it, in f32: four columns of a row each.
alias StripSums = array<Sums, STRIPS * COLUMNS>;
alias Gradients = array<vec4f, STRIPS * COLUMNS * COLUMN_VEC4>;

// A column of matrices on its way from the matrices to the lanes, through the subgroup's areas of `sums`.
fn store_column(accumulator: ptr<function, StripSums>, column: u32) {
  let own = (subgroup % SUBGROUPS / GROUP * 2u + subgroup % 2u) * STRIPS * AREA + subgroup % GROUP / 2u * (AREA / PARTS);
  for (var o = 0u; o < COLUMNS; o++) {
    if (o == column) {
      for (var r = 0u; r < STRIPS; r++) {
        subgroupMatrixStore<row_major>(&sums, own + r * AREA, (*accumulator)[r * COLUMNS + o], MATRIX_N / 4u);
        (*accumulator)[r * COLUMNS + o] = Sums();
      }
    }
  }
}

// Adds what store_column left.
fn take_column(gradients: ptr<function, Gradients>, column: u32) {
  let own = (subgroup % SUBGROUPS / GROUP * 2u + subgroup % 2u) * STRIPS * AREA + subgroup % GROUP / 2u * (AREA / PARTS);
  let first = own + lane % LANES / LANES_PER_ROW * (MATRIX_N / 4u) + lane % LANES_PER_ROW;
  for (var o = 0u; o < COLUMNS; o++) {
    if (o == column) {
      for (var r = 0u; r < STRIPS; r++) {
        for (var n = 0u; n < COLUMN_VEC4; n++) {
          (*gradients)[(r * COLUMNS + o) * COLUMN_VEC4 + n] += bitcast<vec4f>(sums[first + r * AREA + LANES_PER_ROW * n]);
        }
      }
    }
  }
}

// All columns, once `sums` are free.
fn take_all(accumulator: ptr<function, StripSums>, gradients: ptr<function, Gradients>) {
  for (var o = 0u; o < COLUMNS; o++) {
    store_column(accumulator, o);
    workgroupBarrier();
    take_column(gradients, o);
    workgroupBarrier();
  }
}

const LOG2_E = 1.4426950408889634;
// P is multiplied by this power of two before it becomes f16; the dropout factor comes afterwards. P ≤ 1, so it fits.
const WEIGHT_EXPONENT = 14;

// What turns products of halves into P and dS, and those into halves.
struct PairScales {
  product: f32,
  d_weights: f32,
  gradients: f32,
}

fn pair_scales() -> PairScales {
  return PairScales(product_scale(), d_weights_scale(), power_of_two(gradient_exponent()));
}

// P and dS of a query and four keys on their way into f16.
struct HalfPairs {
  weights: vec4f,
  scores: vec4f,
}

// From products of halves. Without additions to the scores P is one fma and one exp2, which loses no digit that f16 has:
// the instructions here are a third of all that these kernels execute.
fn half_pairs(
    product: vec4f, d_weights: vec4f, statistics: vec4f, ids: HeadIds, query: u32, key: u32, scales: PairScales,
    partial: bool) -> HalfPairs {
  if (SPLIT_OPERANDS || SOFTCAP || ALIBI || BIAS || DROPOUT || SINKS) {
    let pair = pair_gradients(
        scaled_by(product, scales.product), d_weights * scales.d_weights, statistics, ids, query, key, partial);
    var weights = pair.weights * power_of_two(WEIGHT_EXPONENT);
    if (DROPOUT) {
      weights = select(vec4f(), weights, pair.factors > vec4f());
    }
    return HalfPairs(weights, pair.scores * scales.gradients);
  }
  let factor = scales.gradients * power_of_two(-WEIGHT_EXPONENT);
  let exponent = f32(WEIGHT_EXPONENT) - LOG2_E * statistics.x; // −∞ for a row that sees no key
  var weights = exp2(fma(product, vec4f(scales.product * LOG2_E), vec4f(exponent)));
  var gradients = weights * fma(d_weights, vec4f(scales.d_weights * factor), vec4f(-statistics.z * factor));
  if (partial) {
    let seen = sees_four(ids, query, key);
    weights = select(vec4f(), weights, seen);
    gradients = select(vec4f(), gradients, seen);
  }
  return HalfPairs(weights, gradients);
}
