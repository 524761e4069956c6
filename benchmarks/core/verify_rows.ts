/** Attention of one query [D] over keys and values [N,D], row after row, in float64. */
export function attendInFloat64(
    query: ArrayLike<number>, keys: ArrayLike<number>, values: ArrayLike<number>, length: number): Float64Array {
  const size = query.length;
  const scores = new Float64Array(length);
  for (let j = 0; j < length; j++) {
    let sum = 0;
    for (let d = 0; d < size; d++) {
      sum += query[d] * keys[j * size + d];
    }
    scores[j] = sum / Math.sqrt(size);
  }
  const max = scores.reduce((m, s) => Math.max(m, s), -Infinity);
  const weights = scores.map(s => Math.exp(s - max));
  const total = weights.reduce((sum, w) => sum + w, 0);
  const output = new Float64Array(size);
  for (let j = 0; j < length; j++) {
    for (let d = 0; d < size; d++) {
      output[d] += weights[j] / total * values[j * size + d];
    }
  }
  return output;
}

/** Rows of one head: `count` of them from `first`, row after row. */
export type ReadRows = (first: number, count: number) => Promise<ArrayLike<number>>;

/** One head of an attention and its result. */
export interface HeadOf {
  q: ReadRows;
  k: ReadRows;
  v: ReadRows;
  output: ReadRows;
  queries: number;
  keys: number;
  causal: boolean;
}

/** Error of the first, middle and last row of the output against float64, relative to the largest value. */
export async function outputError({q, k, v, output, queries, keys, causal}: HeadOf): Promise<number> {
  const [allKeys, allValues] = [await k(0, keys), await v(0, keys)];
  let error = 0;
  let largest = 0;
  for (const row of new Set([0, queries >> 1, queries - 1])) {
    const [query, actual] = [await q(row, 1), await output(row, 1)];
    const expected = attendInFloat64(query, allKeys, allValues, causal ? row + 1 + keys - queries : keys);
    expected.forEach((value, d) => {
      error = Math.max(error, Math.abs(actual[d] - value)); // NaN stays NaN
      largest = Math.max(largest, Math.abs(value));
    });
  }
  return error / largest;
}
