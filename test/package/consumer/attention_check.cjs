// Attention by hand, in plain numbers, to compare the packed package with. CommonJS, so that everybody can load it.
const [BATCH, LENGTH, HEADS, SIZE] = [2, 7, 3, 5];

/** Values in (-1, 1) that follow from the seed. */
function values(seed) {
  return Float32Array.from({length: BATCH * LENGTH * HEADS * SIZE}, (_, i) => Math.sin(seed * 100 + i * 12.9898));
}

const at = (b, n, h) => ((b * LENGTH + n) * HEADS + h) * SIZE;

function causalAttention(q, k, v) {
  const output = new Float32Array(q.length);
  for (let b = 0; b < BATCH; b++) {
    for (let h = 0; h < HEADS; h++) {
      for (let i = 0; i < LENGTH; i++) {
        const weights = [];
        for (let j = 0; j <= i; j++) {
          let score = 0;
          for (let d = 0; d < SIZE; d++) {
            score += q[at(b, i, h) + d] * k[at(b, j, h) + d];
          }
          weights.push(Math.exp(score / Math.sqrt(SIZE)));
        }
        const sum = weights.reduce((total, weight) => total + weight);
        for (let d = 0; d < SIZE; d++) {
          output[at(b, i, h) + d] =
              weights.reduce((total, weight, j) => total + weight * v[at(b, j, h) + d], 0) / sum;
        }
      }
    }
  }
  return output;
}

const shape = [BATCH, LENGTH, HEADS, SIZE];
const [q, k, v] = [values(1), values(2), values(3)];
const expected = causalAttention(q, k, v);

/** @throws when the values are not those of causal attention over q, k, v. */
function assertAttention(what, actual) {
  const error = Math.max(...expected.map((value, i) => Math.abs(value - actual[i]))); // NaN stays NaN
  if (!(actual.length === expected.length && error < 1e-5)) {
    throw new Error(`${what}: expected the result of attention by hand, received one that is ${error} away from it`);
  }
}

module.exports = {shape, q, k, v, assertAttention};
