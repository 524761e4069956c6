/**
 * The rule by which a kernel is judged (after flash_attn's tests): its largest error against float64 is at most twice
 * the largest error of plain attention in the same precision on the same inputs. The finite pattern must match exactly.
 */
export interface Comparison {
  ok: boolean;
  /** Largest error over the finite elements, and what was allowed. */
  error: number;
  allowed: number;
  /** Empty when ok. */
  message: string;
}

/**
 * A handful of roundings (2⁻²⁴ each) of the terms a result is summed from is nobody's fault when plain attention
 * happens to be exact (one key, say).
 */
const FLOOR = 4 * 2 ** -24;

/** WebGPU may take smaller numbers for 0; NVIDIA's Vulkan driver does. */
const SMALLEST_NORMAL = 2 ** -126;

/** The same by compute type. Where operands are rounded, one rounding of each term: 2⁻¹¹, or 2⁻⁸ of bfloat16. */
export const FLOORS = {float32: FLOOR, tensorfloat32: 2 ** -11, float16: 2 ** -11, bfloat16: 2 ** -8} as const;

/**
 * @param magnitude largest Σ|terms| of an element (see ReferenceResult).
 * @param specials `'exact'` for results whose NaN, ∞ and −∞ are defined one by one (output, LSE); `'finite'` for
 *     gradients, where ∞ − ∞ depends on how the softmax gradient is factored and only "not finite" is defined.
 */
export function compare(
    name: string, actual: ArrayLike<number>, reference: ArrayLike<number>, plain: ArrayLike<number>,
    magnitude: number, specials: 'exact'|'finite', floor = FLOOR): Comparison {
  const fail = (message: string): Comparison => ({ok: false, error: NaN, allowed: NaN, message: `${name}: ${message}`});
  if (actual.length !== reference.length || plain.length !== reference.length) {
    return fail(`lengths differ: ${actual.length}, reference ${reference.length}, plain ${plain.length}`);
  }
  let error = 0;
  let where = -1;
  let plainError = 0;
  for (let i = 0; i < reference.length; i++) {
    const expected = reference[i];
    if (!Number.isFinite(expected)) {
      if (specials === 'exact' ? !Object.is(actual[i], expected) : Number.isFinite(actual[i])) {
        return fail(`element ${i} is ${actual[i]}, expected ${expected}`);
      }
      continue;
    }
    if (!Number.isFinite(actual[i])) {
      return fail(`element ${i} is ${actual[i]}, expected ${expected}`);
    }
    const difference = Math.abs(actual[i] - expected);
    if (difference > error) {
      error = difference;
      where = i;
    }
    if (Number.isFinite(plain[i])) {
      plainError = Math.max(plainError, Math.abs(plain[i] - expected));
    }
  }
  const allowed = Math.max(2 * plainError + floor * magnitude, SMALLEST_NORMAL);
  const ok = error <= allowed;
  return {
    ok, error, allowed,
    message: ok ? '' :
                  `${name}: element ${where} is ${actual[where]}, expected ${reference[where]}: error ` +
            `${error.toExponential(2)} > allowed ${allowed.toExponential(2)}`,
  };
}
