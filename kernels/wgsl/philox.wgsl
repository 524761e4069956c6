// Philox4x32-10 (Salmon et al., SC 2011), the same stream as src/op/philox: the weights of query i and keys
// 4·j4 … 4·j4+3 take the four words of the block with counter (j4, i, head, batch).

fn multiply_high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let crossed = a1 * b0 + ((a0 * b0) >> 16u);
  let middle = a0 * b1 + (crossed & 0xffffu);
  return a1 * b1 + (crossed >> 16u) + (middle >> 16u);
}

fn philox(first: vec4u) -> vec4u {
  var counter = first;
  var key = vec2u(params.seed_low, params.seed_high);
  for (var round = 0; round < 10; round++) {
    let high_0 = multiply_high(0xD2511F53u, counter.x);
    let high_1 = multiply_high(0xCD9E8D57u, counter.z);
    counter = vec4u(high_1 ^ counter.y ^ key.x, 0xCD9E8D57u * counter.z, high_0 ^ counter.w ^ key.y,
                    0xD2511F53u * counter.x);
    key += vec2u(0x9E3779B9u, 0xBB67AE85u);
  }
  return counter;
}

// 0 or 1/(1-p) for four neighbouring keys. All positions are those of the whole problem.
fn dropout_factors(batch: u32, head: u32, query: u32, key: u32) -> vec4f {
  let dropped = philox(vec4u(key / 4u, query, head, batch)) < vec4u(params.drop_below);
  return select(vec4f(params.kept_scale), vec4f(), dropped);
}
