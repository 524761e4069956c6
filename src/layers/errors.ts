import {describe} from '../op/options.js';

/** The one form of the layer's errors: `FlashMultiHeadAttention: expected <what> for <name>, received <value>`. */
export function invalid(expected: string, name: string, received: unknown): Error {
  return new Error(`FlashMultiHeadAttention: expected ${expected} for ${name}, received ${describe(received)}`);
}
