import {Tensor} from '@tensorflow/tfjs-core';
import type {Rank, TensorLike} from '@tensorflow/tfjs-core';

import {flashAttention, flashAttentionWithLse} from './op/flash_attention.js';
import type {AttentionWithLse} from './op/flash_attention.js';
import type {FlashAttentionOptions} from './op/options.js';

declare module '@tensorflow/tfjs-core/dist/tensor.js' {
  interface Tensor<R extends Rank = Rank> {
    /** Chained form of `flashAttention(this, k, v, options)`. */
    flashAttention(k: Tensor|TensorLike, v: Tensor|TensorLike, options?: FlashAttentionOptions): Tensor<R>;
    /** Chained form of `flashAttentionWithLse(this, k, v, options)`. */
    flashAttentionWithLse(k: Tensor|TensorLike, v: Tensor|TensorLike, options?: FlashAttentionOptions):
        AttentionWithLse<Tensor<R>>;
  }
}

/** What `extend` adds to a `tf` object. */
export interface FlashAttentionNamespace {
  flashAttention: typeof flashAttention;
  flashAttentionWithLse: typeof flashAttentionWithLse;
}

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
 * Puts `flashAttention` and `flashAttentionWithLse` on a `tf` object that the caller has (tfjs, tfjs-node) and on
 * its tensors. For CommonJS; an ES module namespace cannot be extended, there import `tfjs-flash-attention/tf`.
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
  return Object.assign(tf, {flashAttention, flashAttentionWithLse});
}
