import {Tensor} from '@tensorflow/tfjs-core';

import {invalid} from './errors.js';
import type {MaybeMask} from './received_masks.js';

/**
 * Call arguments of {@link FlashMultiHeadAttention}, as Keras'. They reach the layer only when it is applied to
 * tensors: a model that runs passes `mask` and `training` and nothing else, whatever `apply` was given when the graph
 * was made. A mask that is undefined is taken from its tensor (see the layer); null is none.
 */
export interface AttentionCallOptions {
  /** What tfjs passes: the mask of the first input, or one for each input as an array. */
  mask?: MaybeMask|MaybeMask[];
  /** Dropout is on. Default false. */
  training?: boolean|null;
  /** [B,T] */
  queryMask?: Tensor|null;
  /** [B,S] */
  valueMask?: Tensor|null;
  /** [B,S] */
  keyMask?: Tensor|null;
  /** [T,S], [B,T,S], or rank 4, broadcastable to [B,Hq,T,S]. */
  attentionMask?: Tensor|null;
  /** Stands instead of the layer's own for this call. */
  useCausalMask?: boolean|null;
}

const MASKS = ['queryMask', 'valueMask', 'keyMask', 'attentionMask'] as const;
const FLAGS = ['training', 'useCausalMask', 'returnAttentionScores'] as const;
const KNOWN: ReadonlySet<string> = new Set<string>(['mask', ...MASKS, ...FLAGS]);

type Kwargs = Readonly<Record<string, unknown>>;

/** Checks what needs no input: names, types, and what cannot be had. */
export function checkCallOptions(kwargs: Kwargs): AttentionCallOptions {
  for (const key of Object.keys(kwargs)) {
    if (!KNOWN.has(key)) {
      throw invalid(`one of ${[...KNOWN].join(', ')}`, 'the name of a call argument', key);
    }
  }
  for (const key of FLAGS) {
    if (kwargs[key] != null && typeof kwargs[key] !== 'boolean') {
      throw invalid('a boolean', key, kwargs[key]);
    }
  }
  if (kwargs.returnAttentionScores) {
    throw invalid('false (the scores are never stored)', 'returnAttentionScores', true);
  }
  for (const key of MASKS) {
    const value = kwargs[key];
    if (value != null && !(value instanceof Tensor && !value.isDisposed)) {
      throw invalid('a tensor that is not disposed', key, value);
    }
  }
  // tfjs may pass a mask that is another layer's, and disposed; whose it is comes out later.
  for (const value of [kwargs.mask].flat()) {
    if (value != null && !(value instanceof Tensor)) {
      throw invalid('a tensor or an array of them', 'mask', value);
    }
  }
  return kwargs as AttentionCallOptions;
}

const REMEDIES: Readonly<Record<string, string>> = {
  useCausalMask: 'set useCausalMask in the constructor',
  training: 'model.fit trains and model.predict does not',
};

/** tfjs drops the arguments of a symbolic `apply` when the model runs; here that is an error instead. */
export function refuseSymbolicOptions(kwargs: Kwargs, useCausalMask: boolean): void {
  checkCallOptions(kwargs);
  for (const [key, value] of Object.entries(kwargs)) {
    if (value == null || key === 'returnAttentionScores' || key === 'useCausalMask' && value === useCausalMask) {
      continue;
    }
    const remedy = REMEDIES[key] ?? 'give the mask as an input, after query, value and key';
    throw invalid(`nothing (a model that runs does not pass it on: ${remedy})`, key, value);
  }
}
