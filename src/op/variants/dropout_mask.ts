import {op, tensor4d} from '@tensorflow/tfjs-core';
import type {Tensor4D} from '@tensorflow/tfjs-core';

import {invalid} from '../options.js';
import {dropoutThreshold, philox4x32, philoxKey} from '../philox.js';
import type {Words4} from '../philox.js';

/** The axes of the scores. */
export interface DropoutMaskShape {
  /** B. */
  readonly batch: number;
  /** Hq. */
  readonly queryHeads: number;
  /** Nq. */
  readonly queryLength: number;
  /** Nk. */
  readonly keyLength: number;
}

const AXES = ['batch', 'queryHeads', 'queryLength', 'keyLength'] as const;

function checkArguments(shape: DropoutMaskShape, dropoutP: number, seed: number): void {
  if (shape === null || typeof shape !== 'object') {
    throw invalid(`an object with ${AXES.join(', ')}`, 'the shape', shape);
  }
  for (const axis of AXES) {
    if (!Number.isSafeInteger(shape[axis]) || shape[axis] < 0) {
      throw invalid('an integer of at least 0', axis, shape[axis]);
    }
  }
  if (typeof dropoutP !== 'number' || !(dropoutP >= 0 && dropoutP < 1)) {
    throw invalid('a probability in [0, 1)', 'dropoutP', dropoutP);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw invalid('an integer in [0, 2^53)', 'seed', seed);
  }
}

function dropoutKeepMask_(shape: DropoutMaskShape, dropoutP: number, seed: number): Tensor4D {
  checkArguments(shape, dropoutP, seed);
  const {batch, queryHeads, queryLength, keyLength} = shape;
  const key = philoxKey(seed);
  const threshold = dropoutThreshold(dropoutP);
  const keep = new Uint8Array(batch * queryHeads * queryLength * keyLength);
  let place = 0;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < queryHeads; h++) {
      for (let i = 0; i < queryLength; i++) {
        let words: Words4 = [0, 0, 0, 0];
        for (let j = 0; j < keyLength; j++) {
          if (j % 4 === 0) {
            words = philox4x32([j / 4, i, h, b], key);
          }
          keep[place++] = words[j % 4] < threshold ? 0 : 1;
        }
      }
    }
  }
  return tensor4d(keep, [batch, queryHeads, queryLength, keyLength], 'bool');
}

/**
 * Which softmax weights attention with `dropoutP` and `seed` keeps: the same on every backend, forward and backward.
 * For tests and for looking at dropout: it has the size of the scores, which attention itself never allocates, and is
 * made on the host.
 *
 * @param shape B, Hq, Nq and Nk.
 * @param dropoutP probability in [0, 1) that a weight is dropped; exact to 2⁻³².
 * @param seed integer in [0, 2⁵³).
 * @returns bool [B,Hq,Nq,Nk], true where the weight is kept (and scaled by 1/(1−p) in attention).
 * @throws `flashAttention: expected … for …, received …`
 */
export const dropoutKeepMask = /* @__PURE__ */ op({dropoutKeepMask_}) as typeof dropoutKeepMask_;
