// Writes q, k, v and, in the backward pass, dO as f16 (half.wgsl), and notes their largest elements. It runs twice: most
// tensors are right after the first pass, which takes them as they are; AGAIN divides those by a power of two that need it.
// Split operands all need one: for them the first pass only looks.

@group(0) @binding(16) var<storage, read_write> largest: array<atomic<u32>>;     // of q, k, v, dO, dLSE
@group(0) @binding(17) var<storage, read_write> half_q: array<vec4u>;
@group(0) @binding(18) var<storage, read_write> half_k: array<vec4u>;
@group(0) @binding(19) var<storage, read_write> half_v: array<vec4u>;

var<workgroup> largest_here: atomic<u32>;
var<workgroup> largest_d_lse_here: atomic<u32>;

// Eight halves a thread and step.
const STEPS = 4u;

// vec4us of a row without what rounding took from it.
const HEAD_VECTORS = HEAD_VEC8 / OPERAND_PARTS;
const VALUE_VECTORS = VALUE_VEC8 / OPERAND_PARTS;

fn bits_of_largest(value: vec4f) -> u32 {
  let bits = bitcast<vec4u>(value) & vec4u(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

fn groups_of(vectors: u32) -> u32 {
  return (vectors + THREADS * STEPS - 1u) / (THREADS * STEPS);
}

struct Source {
  at: u32,
  valid: bool,
}

// Row `row` of those that a head of q or dO (of k or v) has as halves.
fn query_source(view: View, batch: u32, head: u32, row: u32) -> Source {
  if (END_TO_END) {
    return Source(view.base + row * view.row + head * view.head, row < params.query_total);
  }
  let ids = head_ids(batch, head);
  return Source(query_at(view, ids, min(row, max(ids.queries, 1u) - 1u)), row < ids.queries);
}

fn key_source(view: View, batch: u32, key_head: u32, row: u32) -> Source {
  if (END_TO_END) {
    return Source(view.base + row * view.row + key_head * view.head, row < params.key_total);
  }
  let ids = head_ids(batch, key_head * params.heads_per_key);
  return Source(key_at(view, ids, min(row, max(ids.keys, 1u) - 1u)), row < ids.keys);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group_id: vec3u, @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32) {
  let query_rows = half_rows(params.queries, params.query_total);
  let key_rows = half_rows(params.keys, params.key_total);
  let key_heads = params.heads / params.heads_per_key;
  let batches = select(params.batches, 1u, END_TO_END);
  let sizes = vec4u(
      batches * params.heads * query_rows * HEAD_VECTORS, batches * key_heads * key_rows * HEAD_VECTORS,
      batches * key_heads * key_rows * VALUE_VECTORS, batches * params.heads * query_rows * VALUE_VECTORS);
  var group = group_id.x + group_id.y * groups.x;
  var tensor = 0u;
  while (tensor < D_OUTPUT && group >= groups_of(sizes[tensor])) {
    group -= groups_of(sizes[tensor]);
    tensor++;
  }
  let is_query = tensor == Q || tensor == D_OUTPUT;
  let rows = select(key_rows, query_rows, is_query);
  let heads = select(key_heads, params.heads, is_query);
  let vectors = select(VALUE_VECTORS, HEAD_VECTORS, tensor == Q || tensor == K);
  var end = sizes[tensor];
  if (tensor == D_OUTPUT && !HAS_D_OUTPUT) {
    end = 0u;
  }
  var divide = 1.0;
  if (AGAIN) {
    let exponent = half_exponent(atomicLoad(&largest[tensor]));
    end = select(end, 0u, exponent == 0 && !SPLIT_OPERANDS);
    divide = power_of_two(-exponent);
  }

  var most = 0u;
  var most_d_lse = 0u;
  for (var step = 0u; step < STEPS; step++) {
    let n = (group * STEPS + step) * THREADS + index;
    if (n < end) {
      let d8 = n % vectors;
      let row = n / vectors % rows;
      let head = n / vectors / rows % heads;
      let batch = n / vectors / rows / heads;
      var low = vec4f();
      var high = vec4f();
      var source: Source;
      switch tensor {
        case Q: {
          source = query_source(params.q, batch, head, row);
          low = q_vec4(source, 2u * d8);
          high = q_vec4(source, 2u * d8 + 1u);
        }
        case K: {
          source = key_source(params.k, batch, head, row);
          low = k_vec4(source, 2u * d8);
          high = k_vec4(source, 2u * d8 + 1u);
        }
        case V: {
          source = key_source(params.v, batch, head, row);
          low = v_vec4(source, 2u * d8);
          high = v_vec4(source, 2u * d8 + 1u);
        }
        default: {
          source = query_source(params.output, batch, head, row);
          low = d_output_vec4(source, 2u * d8);
          high = d_output_vec4(source, 2u * d8 + 1u);
          if (HAS_LSE_GRADIENT && d8 == 0u && source.valid) {
            let row_at = query_source(params.rows, batch, head, row).at;
            most_d_lse = max(most_d_lse, d_lse_bits(row_at) & 0x7fffffffu);
          }
        }
      }
      most = max(most, max(bits_of_largest(low), bits_of_largest(high)));
      low *= divide;
      high *= divide;
      let halves = halves_of(low, high);
      if (SPLIT_OPERANDS) {
        if (AGAIN) {
          let at = n / vectors * vectors * 2u + d8;
          // Bits that a compiler knows nothing of: else some (Mesa's) take what is unpacked for what was packed.
          let kept = halves ^ vec4u(params.splits >> 31u);
          store_halves(tensor, at, halves);
          store_halves(tensor, at + vectors, halves_of(low - half_values(kept.xy), high - half_values(kept.zw)));
        }
      } else {
        store_halves(tensor, n, halves);
      }
    }
  }

  if (!AGAIN) {
    if (index == 0u) {
      atomicStore(&largest_here, 0u);
      atomicStore(&largest_d_lse_here, 0u);
    }
    workgroupBarrier();
    atomicMax(&largest_here, most);
    atomicMax(&largest_d_lse_here, most_d_lse);
    workgroupBarrier();
    if (index == 0u) {
      atomicMax(&largest[tensor], atomicLoad(&largest_here));
      atomicMax(&largest[D_LSE], atomicLoad(&largest_d_lse_here));
    }
  }
}

fn halves_of(low: vec4f, high: vec4f) -> vec4u {
  return vec4u(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
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

fn q_vec4(source: Source, d4: u32) -> vec4f {
  if (!source.valid || d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_q(source.at, d4);
}

fn k_vec4(source: Source, d4: u32) -> vec4f {
  if (!source.valid || d4 >= HEAD_VEC4) {
    return vec4f();
  }
  return load_k(source.at, d4);
}

fn v_vec4(source: Source, d4: u32) -> vec4f {
  if (!source.valid || d4 >= VALUE_VEC4) {
    return vec4f();
  }
  return load_v(source.at, d4);
}
