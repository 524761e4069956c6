// Writes q, k, v and, in the backward pass, dO as f16 (half.wgsl), and notes their largest elements. Most tensors are right
// after the first pass, which takes them as they are, and is all that matrix_forward.wgsl wants. For other kernels it runs
// twice: AGAIN divides those by a power of two that need it. Split operands all need one: for them the first pass only looks.
//
// Each workgroup of the first pass leaves the largest that it saw, and each of the second goes through them all: so
// nothing has to be cleared before.

@group(0) @binding(16) var<storage, read_write> largest: array<u32>;
@group(0) @binding(17) var<storage, read_write> half_q: array<vec4u>;
@group(0) @binding(18) var<storage, read_write> half_k: array<vec4u>;
@group(0) @binding(19) var<storage, read_write> half_v: array<vec4u>;

var<workgroup> largest_here: array<atomic<u32>, LOOKS>;
var<workgroup> divides_any: u32;

// A workgroup takes HALF_ROWS rows of a head, eight halves a thread and step; the loads of so many steps are in flight
// at once.
const AT_ONCE = 4u;

// vec4us of a row without what rounding took from it.
const HEAD_VECTORS = HEAD_VEC8 / OPERAND_PARTS;
const VALUE_VECTORS = VALUE_VEC8 / OPERAND_PARTS;

fn largest_word(bits: vec4u) -> u32 {
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

fn bits_of_largest(value: vec4f) -> u32 {
  return largest_word(bitcast<vec4u>(value) & vec4u(0x7fffffffu));
}

fn bits_of_largest_finite(value: vec4f) -> u32 {
  let bits = bitcast<vec4u>(value) & vec4u(0x7fffffffu);
  return largest_word(select(bits, vec4u(), bits >= vec4u(0x7f800000u)));
}

// Row `row` of those that a head of q or dO (of k or v) has as halves.
fn query_row(view: View, ids: HeadIds, row: u32) -> Source {
  if (END_TO_END) {
    return Source(view.base + row * view.row + ids.head * view.head, row < params.query_total);
  }
  return query_source(view, ids, row);
}

fn key_row(view: View, ids: HeadIds, row: u32) -> Source {
  if (END_TO_END) {
    return Source(view.base + row * view.row + ids.key_head * view.head, row < params.key_total);
  }
  return key_source(view, ids, row);
}

// Eight neighbours of a row.
struct Eight {
  low: vec4f,
  high: vec4f,
}

fn source_eight(tensor: u32, ids: HeadIds, row: u32, d8: u32) -> Eight {
  switch tensor {
    case Q: {
      let source = query_row(params.q, ids, row);
      return Eight(q_vec4(source, 2u * d8), q_vec4(source, 2u * d8 + 1u));
    }
    case K: {
      let source = key_row(params.k, ids, row);
      return Eight(k_vec4(source, 2u * d8), k_vec4(source, 2u * d8 + 1u));
    }
    case V: {
      let source = key_row(params.v, ids, row);
      return Eight(v_vec4(source, 2u * d8), v_vec4(source, 2u * d8 + 1u));
    }
    default: {
      let source = query_row(params.output, ids, row);
      return Eight(d_output_vec4(source, 2u * d8), d_output_vec4(source, 2u * d8 + 1u));
    }
  }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let query_rows = half_rows(params.queries, params.query_total);
  let key_rows = half_rows(params.keys, params.key_total);
  let key_heads = params.heads / params.heads_per_key;
  let all = forward_groups() + select(0u, query_groups(), HAS_D_OUTPUT);
  if (index < LOOKS) {
    atomicStore(&largest_here[index], 0u);
  }
  workgroupBarrier();
  let workgroup = group_id.x + group_id.y * groups.x;
  var workgroups = min(all, TURNING_WORKGROUPS);
  if (AGAIN) {
    look_at_all(workgroups, workgroup, index);
    if (!SPLIT_OPERANDS && workgroupUniformLoad(&divides_any) == 0u) {
      return;
    }
    workgroups = groups.x * groups.y;
  }
  if (workgroup >= workgroups) {
    return;
  }
  for (var item = workgroup; item < all; item += workgroups) {
    var group = item;
    var tensor = Q;
    if (group >= query_groups()) {
      group -= query_groups();
      tensor = K + min(group / max(key_groups(), 1u), 2u);
      group -= (tensor - K) * key_groups();
    }
    let is_query = tensor == Q || tensor == D_OUTPUT;
    let heads = select(key_heads, params.heads, is_query);
    let tiles = select(key_rows, query_rows, is_query) / HALF_ROWS;
    let head = group / tiles % heads;
    let batch = group / tiles / heads;
    var ids = HeadIds();
    ids.head = head;
    ids.key_head = head;
    if (!END_TO_END) {
      ids = head_ids(batch, select(head * params.heads_per_key, head, is_query));
    }
    turn_rows(tensor, ids, group / tiles * tiles * HALF_ROWS, group % tiles * HALF_ROWS, index);
  }
  if (!AGAIN) {
    workgroupBarrier();
    if (index < LOOKS) {
      largest[largest_place(index, workgroup)] = atomicLoad(&largest_here[index]);
    }
  }
}

// By the whole workgroup: the largest that any workgroup of the first pass saw.
fn look_at_all(workgroups: u32, workgroup: u32, index: u32) {
  var most: array<u32, LOOKS>;
  for (var n = index; n < workgroups; n += THREADS) {
    for (var look = 0u; look < LOOKS; look++) {
      most[look] = max(most[look], largest[largest_place(look, n)]);
    }
  }
  for (var look = 0u; look < LOOKS; look++) {
    atomicMax(&largest_here[look], most[look]);
  }
  workgroupBarrier();
  if (index < LOOKS && workgroup == 0u) {
    largest[index] = atomicLoad(&largest_here[index]);
  }
  if (index == 0u) {
    var divides = false;
    for (var tensor = 0u; tensor < D_LSE; tensor++) {
      divides = divides || half_exponent(atomicLoad(&largest_here[tensor])) != 0;
    }
    divides_any = select(0u, 1u, divides);
  }
}

// HALF_ROWS rows of a head from `row_0` on; the head's first is row `first` of the tensor as halves.
fn turn_rows(tensor: u32, ids: HeadIds, first: u32, row_0: u32, index: u32) {
  var exponent = 0;
  if (AGAIN) {
    exponent = half_exponent(atomicLoad(&largest_here[tensor]));
  }
  let divide = power_of_two(-exponent);
  let vectors = select(VALUE_VECTORS, HEAD_VECTORS, tensor == Q || tensor == K);
  let all = select(HALF_ROWS * vectors, 0u, AGAIN && exponent == 0 && !SPLIT_OPERANDS);
  var most = 0u;
  var most_finite = 0u;
  for (var start = index; start < all; start += AT_ONCE * THREADS) {
    var eights: array<Eight, AT_ONCE>;
    for (var step = 0u; step < AT_ONCE; step++) {
      let n = min(start + step * THREADS, all - 1u);
      eights[step] = source_eight(tensor, ids, row_0 + n / vectors, n % vectors);
    }
    for (var step = 0u; step < AT_ONCE; step++) {
      let n = start + step * THREADS;
      if (n < all) {
        let here = max(bits_of_largest(eights[step].low), bits_of_largest(eights[step].high));
        most = max(most, here);
        if (here < 0x7f800000u) {
          most_finite = max(most_finite, here);
        } else {
          most_finite = max(most_finite, max(
              bits_of_largest_finite(eights[step].low), bits_of_largest_finite(eights[step].high)));
        }
        let low = eights[step].low * divide;
        let high = eights[step].high * divide;
        let halves = halves_of(low, high);
        let at = (first + row_0) * vectors + n;
        if (SPLIT_OPERANDS) {
          if (AGAIN) {
            let whole_at = at / vectors * vectors * 2u + n % vectors;
            // Bits that a compiler knows nothing of: else some (Mesa's) take what is unpacked for what was packed.
            let kept = halves ^ vec4u(params.splits >> 31u);
            store_halves(tensor, whole_at, halves);
            store_halves(
                tensor, whole_at + vectors, halves_of(low - half_values(kept.xy), high - half_values(kept.zw)));
          }
        } else {
          store_halves(tensor, at, halves);
        }
      }
    }
  }
  if (!AGAIN) {
    if (HAS_LSE_GRADIENT && tensor == D_OUTPUT) {
      var most_d_lse = 0u;
      for (var row = index; row < HALF_ROWS; row += THREADS) {
        let source = query_row(params.rows, ids, row_0 + row);
        if (source.valid) {
          let bits = d_lse_bits(source.at) & 0x7fffffffu;
          most = max(most, bits);
          most_d_lse = max(most_d_lse, select(bits, 0u, bits >= 0x7f800000u));
        }
      }
      atomicMax(&largest_here[D_LSE], most_d_lse);
    }
    atomicMax(&largest_here[tensor], most_finite);
    atomicMax(&largest_here[ALL], most);
  }
}

fn half_values(halves: vec2u) -> vec4f {
  return vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
}

fn store_halves(tensor: u32, at: u32, halves: vec4u) {
  switch tensor {
    case Q: { half_q[at] = halves; }
    case K: { half_k[at] = halves; }
    case V: { half_v[at] = halves; }
    default: { store_half_d_output(at, halves); }
  }
}
