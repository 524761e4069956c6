/**
 * How the reference computes. The loops are written once for each precision: one that took the rounding as a function
 * would be ten times slower, and the reference has thousands of cases to compute.
 */
export interface Precision {
  round(x: number): number;
  /** Σ_d a[at + d]·b[bt + d], in the order of d. */
  dot(a: Float32Array, at: number, b: Float32Array, bt: number, size: number): number;
  /** into[to + d] += factor·row[from + d]. */
  addScaled(into: Float64Array, to: number, factor: number, row: Float32Array, from: number, size: number): void;
}

export const float64: Precision = {
  round: x => x,
  dot(a, at, b, bt, size) {
    let sum = 0;
    for (let d = 0; d < size; d++) {
      sum += a[at + d] * b[bt + d];
    }
    return sum;
  },
  addScaled(into, to, factor, row, from, size) {
    for (let d = 0; d < size; d++) {
      into[to + d] += factor * row[from + d];
    }
  },
};

/** Every operation rounded to float32. */
export const float32: Precision = {
  round: Math.fround,
  dot(a, at, b, bt, size) {
    let sum = 0;
    for (let d = 0; d < size; d++) {
      sum = Math.fround(sum + Math.fround(a[at + d] * b[bt + d]));
    }
    return sum;
  },
  addScaled(into, to, factor, row, from, size) {
    for (let d = 0; d < size; d++) {
      into[to + d] = Math.fround(into[to + d] + Math.fround(factor * row[from + d]));
    }
  },
};
