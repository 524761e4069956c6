import {logicalAnd, notEqual, reshape} from '@tensorflow/tfjs-core';
import type {Tensor, Tensor2D, Tensor4D} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';

import type {AttentionCallOptions} from './call_options.js';
import {invalid} from './errors.js';
import type {Roles} from './inputs.js';
import {shareOuterMask} from './mask_origin.js';
import {liveAttachedMask, paddingMask, receivedMasks} from './received_masks.js';
import type {MaybeMask} from './received_masks.js';

/**
 * Keras combines query_mask [B,T,1], value_mask and key_mask [B,1,S] and attention_mask into one [B,T,S] by AND. Here
 * the query's stays apart: with it, [B,1,1,S] would become a tensor with T·S elements. The layer clears the rows of
 * the queries instead, which is what a row that sees no key gives.
 */
export interface AttentionMasks {
  /** bool [B,T]: rows to keep. */
  readonly query?: Tensor2D;
  /**
   * bool, for the op: [B,1,1,S] from masks of value and key alone, of 1 or full size in each axis of [B,Hq,T,S]
   * when the caller brings an attention mask.
   */
  readonly attention?: Tensor4D;
}

// Not a cast: on some backends (wasm) that truncates, and 0.5 would be false.
const toBool = <T extends Tensor>(mask: T): T => mask.dtype === 'bool' ? mask : notEqual(mask, 0);

/** [T,S], [B,T,S] or rank 4 as rank 4, each axis 1 or as in `scores`, [B,Hq,T,S]. */
function attentionMask(mask: Tensor, scores: readonly number[]): Tensor4D {
  const {shape} = mask;
  const rank4 = shape.length === 2 ? [1, 1, ...shape] :
      shape.length === 3           ? [shape[0], 1, ...shape.slice(1)] :
                                     shape;
  if (rank4.length !== 4 || rank4.some((n, axis) => n !== 1 && n !== scores[axis])) {
    const [batch, heads, queries, keys] = scores;
    throw invalid(
        `[T,S] = [${queries},${keys}], [B,T,S] = [${batch},${queries},${keys}], or a shape that broadcasts to ` +
            `[B,Hq,T,S] = [${batch},${heads},${queries},${keys}]`,
        'attentionMask', mask);
  }
  return toBool(reshape(mask, rank4 as Tensor4D['shape']));
}

/** Padding masks of the keys: those given as inputs, or else what the call or the tensors say of value and key. */
function keyMasks(
    layer: layers.Layer, roles: Roles<Tensor>, options: AttentionCallOptions, received: MaybeMask[]): Tensor[] {
  const {query, value, key, paddingMasks} = roles;
  const maskOf = (tensor: Tensor, place: number, name: string): MaybeMask => {
    const sameAsQuery = tensor === query || shareOuterMask(layer, 0, place);
    return received[place] ?? (sameAsQuery ? received[0] : undefined) ?? liveAttachedMask(tensor, name);
  };
  const fromInputs = paddingMasks.length > 0;
  const ofValue = options.valueMask !== undefined || fromInputs ? options.valueMask : maskOf(value, 1, 'value');
  const ofKey = options.keyMask !== undefined || fromInputs || key === value ? options.keyMask : maskOf(key, 2, 'key');
  const size = [value.shape[0], value.shape[1]!] as const;
  const named = [['valueMask', ofValue], ['keyMask', ofKey], ...paddingMasks.map(mask => ['a padding mask', mask])];
  return (named as Array<[string, MaybeMask]>)
      .filter((entry): entry is [string, Tensor] => entry[1] != null)
      .map(([name, mask]) => toBool(paddingMask(mask, size, name)));
}

/**
 * Every mask that applies to a call.
 * @param inputs as the layer received them.
 */
export function attentionMasks(
    layer: layers.Layer, inputs: Tensor|Tensor[], roles: Roles<Tensor>, options: AttentionCallOptions,
    numHeads: number): AttentionMasks {
  const [batch, queries] = roles.query.shape;
  const keys = roles.value.shape[1]!;
  const received = receivedMasks(layer, inputs, options.mask);
  const query = options.queryMask !== undefined ? options.queryMask :
                                                  received[0] ?? liveAttachedMask(roles.query, 'query');
  const padding = keyMasks(layer, roles, options, received);
  const scores = [batch, numHeads, queries, keys];
  const given = [...roles.attentionMasks, ...options.attentionMask ? [options.attentionMask] : []];
  const all = given.map(mask => attentionMask(mask, scores));
  if (padding.length > 0) {
    all.push(reshape(padding.reduce((a, b) => logicalAnd(a, b)), [batch, 1, 1, keys]));
  }
  return {
    query: query == null ? undefined : toBool(paddingMask(query, [batch, queries], 'queryMask')) as Tensor2D,
    attention: all.length === 0 ? undefined : all.reduce((a, b) => logicalAnd(a, b)),
  };
}
