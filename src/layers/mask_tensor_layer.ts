import {cast, ones, tidy} from '@tensorflow/tfjs-core';
import type {Tensor} from '@tensorflow/tfjs-core';
import {layers} from '@tensorflow/tfjs-layers';

import {invalid} from './errors.js';
import type {Shape} from './inputs.js';
import {liveAttachedMask, paddingMask, receivedMasks} from './received_masks.js';
import {registerOnce} from './register.js';

/**
 * Gives the mask of its input as a tensor: [B,L,...] → float32 [B,L], 1 where the mask is true, all ones without a
 * mask. tfjs tells a layer the mask of its first input only; what this layer returns can be any input of another.
 * {@link FlashMultiHeadAttention} puts one in where its value has a mask that it could not see otherwise. Use it
 * yourself to carry a mask into a nested model, which tfjs does only for the nested model's first input:
 *
 * ```js
 * const memoryMask = new FlashAttentionMask().apply(memory);           // [B,S]
 * const output = decoderBlock.apply([target, memory, memoryMask]);     // inside: mha.apply([target, memory, mask])
 * ```
 */
export class FlashAttentionMask extends layers.Layer {
  static className = 'FlashAttentionMask';

  override computeOutputShape(inputShape: Shape|Shape[]): Shape {
    const [first] = inputShape;
    const shape = (Array.isArray(first) && inputShape.length === 1 ? first : inputShape) as Shape;
    if (Array.isArray(shape[0]) || shape.length < 2) {
      throw invalid('one tensor of rank 2 or more', 'the input of FlashAttentionMask', inputShape);
    }
    return shape.slice(0, 2);
  }

  override call(inputs: Tensor|Tensor[], kwargs: {mask?: unknown}): Tensor {
    return tidy(() => {
      const list = Array.isArray(inputs) ? inputs : [inputs];
      const [batch, length] = this.computeOutputShape(list.map(input => input.shape)) as [number, number];
      const mask = receivedMasks(this, inputs, kwargs?.mask)[0] ?? liveAttachedMask(list[0], 'input');
      // Cast in any case: tfjs disposes a layer's output when its last reader is done, and the mask lives on.
      return mask == null ? ones([batch, length]) : cast(paddingMask(mask, [batch, length], 'mask'), 'float32');
    });
  }

  /** None: what comes out is data. (tfjs' own refuses to be asked when the input has a mask.) */
  override computeMask(): Tensor {
    return null!;
  }
}

registerOnce(FlashAttentionMask);
