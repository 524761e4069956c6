// The matrix products every kernel is made of, blocked in registers over two tiles in workgroup memory.
//
// A workgroup has THREADS_X × THREADS_Y threads and works on BLOCK_QUERIES × BLOCK_KEYS scores. Thread (tx, ty) owns
// the scores of queries ty + THREADS_Y·i (i < ROWS) and of keys 4·tx … 4·tx+3: one vec4 a query. Neighbouring threads
// read neighbouring vec4s of `right`, and the odd strides keep rows in different banks.
//
// `left` holds the left operand of the product at hand: rows of Q or dO while scores are made, then the weights P or
// dS [query][key]. `right` holds the right operand: K or V turned [size][key] for scores, else [row][size].

var<workgroup> left: array<vec4f, LEFT_LENGTH>;
var<workgroup> right: array<vec4f, RIGHT_LENGTH>;
var<workgroup> right_not_finite: atomic<u32>;

alias Scores = array<vec4f, ROWS>;

fn query_row(i: u32) -> u32 {
  return ty + THREADS_Y * i;
}

// K and V are turned on the way into `right` in blocks of four keys by four elements. Eight neighbouring threads take
// four keys × two vec4s: whole 32-byte sectors of global memory in, eight different banks out.
// Gives (first key, vec4) of the n-th block; with an odd CHUNK some lie past the end.
fn turned_block(n: u32) -> vec2u {
  let keys = (n & 3u) + 4u * ((n >> 3u) % (BLOCK_KEYS / 16u));
  let d4 = ((n >> 2u) & 1u) + 2u * ((n >> 3u) / (BLOCK_KEYS / 16u));
  return vec2u(4u * keys, d4);
}

fn store_turned(block: vec2u, a: vec4f, b: vec4f, c: vec4f, d: vec4f) {
  let at = 4u * block.y * TURNED_STRIDE + block.x / 4u;
  right[at] = vec4f(a.x, b.x, c.x, d.x);
  right[at + TURNED_STRIDE] = vec4f(a.y, b.y, c.y, d.y);
  right[at + 2u * TURNED_STRIDE] = vec4f(a.z, b.z, c.z, d.z);
  right[at + 3u * TURNED_STRIDE] = vec4f(a.w, b.w, c.w, d.w);
}

// scores[query][key] += left[query][·] · right[·][key] over CHUNK vec4s of the head size.
//
// The index arithmetic of the three products (here, query_tile, key_tile) is written so that a compiler can see that
// it stays inside the tiles: loops from 0 to a constant, `%` by a constant. Tint then leaves out the clamp that WebGPU
// demands before every other access to workgroup memory.
fn multiply_scores(scores: ptr<function, Scores>) {
  let x = tx % THREADS_X;
  let y = ty % THREADS_Y;
  for (var d4 = 0u; d4 < CHUNK; d4++) {
    let right_0 = right[4u * d4 * TURNED_STRIDE + x];
    let right_1 = right[(4u * d4 + 1u) * TURNED_STRIDE + x];
    let right_2 = right[(4u * d4 + 2u) * TURNED_STRIDE + x];
    let right_3 = right[(4u * d4 + 3u) * TURNED_STRIDE + x];
    for (var i = 0u; i < ROWS; i++) {
      let a = left[(y + THREADS_Y * i) * LEFT_STRIDE + d4];
      var sum = (*scores)[i];
      sum = fma(vec4f(a.x), right_0, sum);
      sum = fma(vec4f(a.y), right_1, sum);
      sum = fma(vec4f(a.z), right_2, sum);
      sum = fma(vec4f(a.w), right_3, sum);
      (*scores)[i] = sum;
    }
  }
}

fn store_weights(weights: ptr<function, Scores>) {
  for (var i = 0u; i < ROWS; i++) {
    left[query_row(i) * WEIGHTS_STRIDE + tx] = (*weights)[i];
  }
}

// Place of vec4 column j of this thread in a row of `right`.
fn column(j: u32) -> u32 {
  return tx + THREADS_X * j;
}

// A key or query that is not seen has weight 0, but 0 · NaN is NaN: rows of `right` that hold a NaN or an infinity
// must not meet weights of pairs that are not seen. Threads report what they stage; see right_is_clean.
fn note_staged(value: vec4f) {
  if (any_not_finite(value)) {
    atomicStore(&right_not_finite, 1u);
  }
}

fn right_is_clean() -> bool {
  return atomicLoad(&right_not_finite) == 0u;
}
