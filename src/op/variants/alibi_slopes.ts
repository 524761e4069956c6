import {op, tensor1d} from '@tensorflow/tfjs-core';
import type {Tensor1D} from '@tensorflow/tfjs-core';

import {invalid} from '../options.js';

/**
 * The slopes of {@link alibiSlopes} as numbers.
 * @param heads Hq, an integer of at least 1.
 * @throws `flashAttention: expected … for heads, received …`
 */
export function alibiSlopeValues(heads: number): number[] {
  if (!Number.isSafeInteger(heads) || heads < 1) {
    throw invalid('an integer of at least 1', 'heads', heads);
  }
  const below = 2 ** Math.floor(Math.log2(heads)); // the largest power of two up to heads
  return Array.from({length: heads}, (_, h) => {
    // The heads beyond it take every other slope of twice as many heads: those that lie between its own.
    const steps = h < below ? h + 1 : h - below + 0.5;
    return 2 ** (-8 * steps / below);
  });
}

function alibiSlopes_(heads: number): Tensor1D {
  return tensor1d(alibiSlopeValues(heads), 'float32');
}

/**
 * Slopes for the option `alibiSlopes` (Press et al., "Train short, test long: attention with linear biases enables
 * input length extrapolation", ICLR 2022): 2^(−8/n), 2^(−16/n), … for n heads. Where n is no power of two, the rest is
 * filled as in the authors' code (`get_slopes`) and flash_attn's `get_alibi_slopes`.
 *
 * ```js
 * flashAttention(q, k, v, {causal: true, alibiSlopes: alibiSlopes(8)});
 * ```
 *
 * @param heads Hq, an integer of at least 1.
 * @returns float32 [Hq].
 * @throws `flashAttention: expected … for heads, received …`
 */
export const alibiSlopes = /* @__PURE__ */ op({alibiSlopes_}) as typeof alibiSlopes_;
