import * as tf from '@tensorflow/tfjs';

/** One call that must be refused, and in which words. */
export interface MalformedCall {
  /** The function, and what is wrong with the call. */
  readonly what: string;
  /** Makes the arguments. By itself, so that what the call allocates can be told from what it was given. */
  given(): unknown[];
  call(...given: unknown[]): unknown;
  /** The whole message. */
  readonly message: string;
}

/** What is wrong, the arguments, and the message behind `flashAttention: expected `. */
export type Row = readonly [what: string, given: () => unknown[], message: string];

/** The rows of one function, which is called with whatever a row gives, types or no types. */
export function malformedCalls(name: string, call: unknown, rows: readonly Row[]): MalformedCall[] {
  return rows.map(([what, given, message]) => ({
    what: `${name}: ${what}`, given, call: call as MalformedCall['call'],
    message: `flashAttention: expected ${message}`,
  }));
}

export const ones = (...shape: number[]) => tf.ones(shape);

export const integers = (...values: number[]) => tf.tensor1d(values, 'int32');

export function disposed(...shape: number[]): tf.Tensor {
  const tensor = tf.ones(shape);
  tensor.dispose();
  return tensor;
}

/** A tensor that only answers asynchronously, as results do on WebGPU outside of browsers. */
export function unreadable<T extends tf.Tensor>(tensor: T): T {
  return Object.assign(tensor, {
    dataSync() {
      throw new Error('OffscreenCanvas is not defined');
    },
  });
}
