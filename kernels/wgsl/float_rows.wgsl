// Rows of q, k and v on their way into f16. What lies past the end of a sequence, or of a row, is 0.

struct Source {
  at: u32,
  valid: bool,
}

fn query_source(view: View, ids: HeadIds, row: u32) -> Source {
  return Source(query_at(view, ids, min(row, max(ids.queries, 1u) - 1u)), row < ids.queries);
}

fn key_source(view: View, ids: HeadIds, row: u32) -> Source {
  return Source(key_at(view, ids, min(row, max(ids.keys, 1u) - 1u)), row < ids.keys);
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

fn halves_of(low: vec4f, high: vec4f) -> vec4u {
  if (any_not_finite(low) || any_not_finite(high)) {
    return vec4u(any_halves(low.xy), any_halves(low.zw), any_halves(high.xy), any_halves(high.zw));
  }
  return vec4u(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

// As pack2x16float, which promises nothing about infinities and NaN.
fn any_halves(pair: vec2f) -> u32 {
  let bits = bitcast<vec2u>(pair);
  let size = bits & vec2u(0x7fffffffu);
  let broken = select(vec2u(0x7e00u), vec2u(0x7c00u), size == vec2u(0x7f800000u)) | ((bits >> vec2u(16u)) & vec2u(0x8000u));
  let finite = pack2x16float(select(pair, vec2f(), size >= vec2u(0x7f800000u)));
  let words = select(vec2u(finite & 0xffffu, finite >> 16u), broken, size >= vec2u(0x7f800000u));
  return words.x | (words.y << 16u);
}
