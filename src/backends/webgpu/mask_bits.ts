import type {Shape4} from '../../op/problem.js';

/** Keys of a word of a mask as bits. */
export const WORD_KEYS = 32;

/** Rows of a mask that have a summary together, a row of words before them; a thread of pack_mask each. */
export const MASK_GROUP = 64;

/** A mask as bits (kernels/wgsl/mask.wgsl), in words: the summaries are rows of it. */
export const maskBitsShape = ([batch, heads, rows, keys]: Shape4): Shape4 =>
    [batch, heads, rows + Math.ceil(rows / MASK_GROUP), Math.ceil(keys / WORD_KEYS)];
