/**
 * How the reference computes. The loops are written once for each precision: one that took the rounding as a function
 * would be ten times slower, and the reference has thousands of cases to compute.
 */
export interface Precision {
  round(x: number): number;
  /** What a matrix product reads and gives is rounded to this. */
  store(x: number): number;
  /** Σ_d a[at + d]·b[bt + d], in the order of d. */
  dot(a: Float32Array, at: number, b: Float32Array, bt: number, size: number): number;
  /** into[to + d] += factor·row[from + d]. */
  addScaled(into: Float64Array, to: number, factor: number, row: Float32Array, from: number, size: number): void;
}

export const float64: Precision = {
  round: x => x,
  store: x => x,
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
  store: x => x,
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

const FLOAT16_MAX = 65504;

/** The nearest float16, ties to even; beyond the largest, ∞. */
export function roundToFloat16(x: number): number {
  if (x === 0 || !Number.isFinite(x)) {
    return x;
  }
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(x))));
  const unit = 2 ** (exponent - 10);
  const count = x / unit; // exact: a power of two
  const floor = Math.floor(count);
  const rest = count - floor;
  const rounded = (rest > 0.5 || rest === 0.5 && floor % 2 !== 0 ? floor + 1 : floor) * unit;
  return Math.abs(rounded) > FLOAT16_MAX ? Math.sign(x) * Infinity : rounded;
}

/** Matrix products of float16 summed and softmax done in float32: what autocast makes of plain attention. */
export const float16: Precision = {...float32, store: roundToFloat16};

/** The nearest number with so many bits after the leading one and the exponents of float32, ties to even. */
export function roundToBits(x: number, bits: number): number {
  if (x === 0 || !Number.isFinite(x)) {
    return x;
  }
  const unit = 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x)))) - bits);
  const count = x / unit; // exact: a power of two
  const floor = Math.floor(count);
  const rest = count - floor;
  return Math.fround((rest > 0.5 || rest === 0.5 && floor % 2 !== 0 ? floor + 1 : floor) * unit);
}

/** The same of bfloat16 and tensorfloat32. */
export const bfloat16: Precision = {...float32, store: x => roundToBits(x, 7)};
export const tensorfloat32: Precision = {...float32, store: x => roundToBits(x, 10)};
