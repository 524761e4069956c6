import * as tf from '@tensorflow/tfjs';

import {FlashMultiHeadAttention} from '../../../src/layers/index.js';
import type {AttendOptions} from '../../../src/layers/index.js';

export type Seen = Pick<AttendOptions, 'causal'|'dropoutP'|'seed'>&{maskShape?: number[], mask?: number[]};

/** Records what reaches the attention itself, and what tfjs passed as the mask, then computes as ever. */
export class SpyAttention extends FlashMultiHeadAttention {
  static override className = 'SpyAttention';
  readonly seen: Seen[] = [];
  readonly received: unknown[] = [];

  override call(inputs: tf.Tensor|tf.Tensor[], kwargs: Record<string, unknown>): tf.Tensor {
    this.received.push(kwargs.mask);
    return super.call(inputs, kwargs);
  }

  protected override attend(q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, options: AttendOptions): tf.Tensor4D {
    const {mask, causal, dropoutP, seed} = options;
    this.seen.push({causal, dropoutP, seed, maskShape: mask?.shape, mask: mask && [...mask.dataSync()]});
    return super.attend(q, k, v, options);
  }

  /** What the latest call computed with. */
  get last(): Seen {
    return this.seen[this.seen.length - 1];
  }
}

export const spy = (config: Partial<ConstructorParameters<typeof FlashMultiHeadAttention>[0]> = {}) =>
    new SpyAttention({numHeads: 2, keyDim: 3, ...config});

/** Ids of two sequences of 3, and the mask that {@link maskedEmbedding} makes of them. */
export const IDS = [[3, 1, 0], [5, 0, 0]];
export const IDS_MASK = [1, 1, 0, 1, 0, 0];
/** The same of 5. */
export const LONG_IDS = [[3, 1, 4, 0, 0], [5, 8, 2, 6, 7]];
export const LONG_MASK = [1, 1, 1, 0, 0, 1, 1, 1, 1, 1];

export const maskedEmbedding = (args: {inputLength?: number} = {}) =>
    tf.layers.embedding({inputDim: 9, outputDim: 4, maskZero: true, ...args});
