import type {Tensor} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {reshape} from '@tensorflow/tfjs-core';

import {invalid} from './errors.js';
import {receivesFirstMask} from './mask_origin.js';

export type MaybeMask = Tensor|null|undefined;

/** What tfjs' `apply` leaves on the output of a layer that makes a mask itself; Keras' `_keras_mask`. */
interface Masked {
  kerasMask?: Tensor|null;
}

/**
 * The mask that the layer which gave this tensor put on it. Only layers that make masks do (Embedding, Masking), and
 * ours, which hands it on; any other layer loses it, so in a model the graph is asked instead.
 */
export function attachedMask(tensor: Tensor): Tensor|undefined {
  return (tensor as Masked).kerasMask ?? undefined;
}

/** The same where it is needed: a mask that is dead by then cannot be left out in silence. */
export function liveAttachedMask(tensor: Tensor, name: string): Tensor|undefined {
  const mask = attachedMask(tensor);
  if (mask?.isDisposed) {
    throw invalid(
        `a mask that is not disposed (a tidy or a nested model disposed it: give it as an input, pass ${name}Mask, ` +
            'or null for none, or switch maskZero off)',
        `the mask on the ${name}`, mask);
  }
  return mask;
}

/**
 * The masks that tfjs hands a layer in `kwargs.mask`, one for each input as far as known. A running model gives the
 * first input's only; `runInternalGraph` (Container.computeMask) and a caller may give all, as an array.
 * @param inputs as the layer received them: a bare tensor never comes from a running model, so its mask is meant.
 */
export function receivedMasks(layer: layers.Layer, inputs: Tensor|Tensor[], mask: unknown): MaybeMask[] {
  if (mask == null) {
    return [];
  }
  if (Array.isArray(mask)) {
    return mask as MaybeMask[];
  }
  return !Array.isArray(inputs) || receivesFirstMask(layer) ? [mask as Tensor] : [];
}

/**
 * A padding mask as [B,L]. tfjs' Add and its kin put an axis of size 1 in front of the mask at each residual, which
 * is taken off here.
 */
export function paddingMask(mask: Tensor, [batch, length]: readonly [number, number], name: string): Tensor {
  if (mask.isDisposed) {
    throw invalid('a tensor that is not disposed', name, mask);
  }
  const {shape} = mask;
  const extra = shape.length - 2;
  const fits = extra >= 0 && shape[extra] === batch && shape[extra + 1] === length;
  if (!fits || shape.some((n, axis) => axis < extra && n !== 1)) {
    throw invalid(`a mask of shape [${batch},${length}]`, name, mask);
  }
  return extra === 0 ? mask : reshape(mask, [batch, length]);
}
