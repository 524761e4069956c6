import type {AttentionShape} from './results.js';

/** 4·B·H·N²·D for the forward pass, half of it under a causal mask. */
export function forwardFlops({batch, heads, length, headSize, causal}: AttentionShape&{causal: boolean}): number {
  return 4 * batch * heads * length ** 2 * headSize / (causal ? 2 : 1);
}

/** The backward pass counts 2.5 times the forward pass. */
export const STEP_FLOPS = 3.5;
