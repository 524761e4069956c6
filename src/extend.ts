import {Tensor} from '@tensorflow/tfjs-core';
import type {Rank, TensorLike} from '@tensorflow/tfjs-core';

import {flashAttention, flashAttentionWithLse} from './op/flash_attention.js';
import type {AttentionWithLse} from './op/flash_attention.js';
import type {FlashAttentionOptions} from './op/options.js';
import {alibiSlopes} from './op/variants/alibi_slopes.js';
import {dropoutKeepMask} from './op/variants/dropout_mask.js';
import {flashAttentionWithKvCache} from './op/variants/kv_cache_attention.js';
import {mergeAttention} from './op/variants/merge_attention.js';
import {
  flashAttentionKvPacked, flashAttentionKvPackedWithLse, flashAttentionQkvPacked, flashAttentionQkvPackedWithLse,
} from './op/variants/packed.js';
import {padInput, unpadInput} from './op/variants/padding.js';
import {applyRotaryEmbedding} from './op/variants/rotary.js';
import {
  flashAttentionVarlen, flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked, flashAttentionVarlenWithLse,
} from './op/variants/varlen.js';

declare module '@tensorflow/tfjs-core/dist/tensor.js' {
  interface Tensor<R extends Rank = Rank> {
    /** Chained form of `flashAttention(this, k, v, options)`. */
    flashAttention(k: Tensor|TensorLike, v: Tensor|TensorLike, options?: FlashAttentionOptions): Tensor<R>;
    /** Chained form of `flashAttentionWithLse(this, k, v, options)`. */
    flashAttentionWithLse(k: Tensor|TensorLike, v: Tensor|TensorLike, options?: FlashAttentionOptions):
        AttentionWithLse<Tensor<R>>;
  }
}

const FUNCTIONS = {
  flashAttention, flashAttentionWithLse,
  flashAttentionQkvPacked, flashAttentionQkvPackedWithLse, flashAttentionKvPacked, flashAttentionKvPackedWithLse,
  flashAttentionVarlen, flashAttentionVarlenWithLse, flashAttentionVarlenQkvPacked, flashAttentionVarlenKvPacked,
  flashAttentionWithKvCache, mergeAttention, applyRotaryEmbedding, alibiSlopes, unpadInput, padInput, dropoutKeepMask,
};

/** What `extend` adds to a `tf` object. */
export type FlashAttentionNamespace = typeof FUNCTIONS;

function chain(tensorClass: {prototype: Tensor}): void {
  tensorClass.prototype.flashAttention = function(this: Tensor, k, v, options) {
    return flashAttention(this, k, v, options);
  };
  tensorClass.prototype.flashAttentionWithLse = function(this: Tensor, k, v, options) {
    return flashAttentionWithLse(this, k, v, options);
  };
}

chain(Tensor);

/**
 * Puts `flashAttention`, its variants and what goes with them on a `tf` object that the caller has (tfjs, tfjs-node),
 * and `flashAttention` on its tensors. For CommonJS; an ES module namespace cannot be extended, there import
 * `tfjs-flash-attention/tf`.
 *
 * ```js
 * const tf = require('tfjs-flash-attention').extend(require('@tensorflow/tfjs'));
 * tf.flashAttention(q, k, v, {causal: true});
 * ```
 * @throws when `tf` is not a tfjs object or cannot be extended.
 */
export function extend<TF extends object>(tf: TF): TF&FlashAttentionNamespace {
  const {Tensor: tensorClass} = (tf ?? {}) as {Tensor?: {prototype: Tensor}};
  if (typeof tensorClass !== 'function') {
    throw new Error('flashAttention: expected the tfjs object for tf, received ' + typeof tf);
  }
  if (!Object.isExtensible(tf)) {
    throw new Error(
        'flashAttention: expected an object that can be extended for tf, received an ES module namespace; ' +
        'use `import * as tf from \'tfjs-flash-attention/tf\'` instead');
  }
  chain(tensorClass);
  return Object.assign(tf, FUNCTIONS);
}
