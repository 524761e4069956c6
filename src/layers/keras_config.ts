import type {serialization} from '@tensorflow/tfjs-core';

import {invalid} from './errors.js';

type Dict = Record<string, unknown>;

/** Keras' GroupedQueryAttention names the same things differently. */
const GROUPED_NAMES: Readonly<Record<string, string>> = {
  headDim: 'keyDim', numQueryHeads: 'numHeads', numKeyValueHeads: 'numKvHeads',
};

/** A plain object, of whichever realm (JSON parsed in a vm or an iframe has another Object); not a tensor. */
function isDict(value: unknown): value is Dict {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    return false;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function camelCase(text: string): string {
  return text.replace(/_+(\w|$)/g, (_, letter: string) => letter.toUpperCase());
}

/** As tfjs turns a model's JSON into its own spelling: keys, and strings like `'glorot_uniform'`; never names. */
function toCamelCase(value: unknown): unknown {
  if (typeof value === 'string') {
    return camelCase(value);
  }
  if (Array.isArray(value)) {
    return value.map(toCamelCase);
  }
  if (!isDict(value)) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) =>
      [camelCase(key), key === 'name' ? inner : toCamelCase(inner)]));
}

/** Keras has L1 and L2 beside L1L2; tfjs has only the last. */
function adaptRegularizer(value: unknown): unknown {
  if (!isDict(value) || (value.className !== 'L1' && value.className !== 'L2')) {
    return value;
  }
  const {l1 = 0, l2 = 0} = (value.config ?? {}) as Dict;
  return {className: 'L1L2', config: {l1, l2}};
}

/** Keras 3 writes a dtype policy where Keras 2 wrote a name. */
function adaptDType(value: unknown): unknown {
  return isDict(value) ? ((value.config ?? {}) as Dict).name : value;
}

/**
 * The config of this layer, or of Keras' `MultiHeadAttention` or `GroupedQueryAttention` (Keras 2 or 3, snake_case
 * or camelCase), as arguments of the constructor, which checks them.
 */
export function adaptKerasConfig(config: serialization.ConfigDict): Dict {
  if (!isDict(config)) {
    throw invalid('an object', 'config', config);
  }
  // tfjs puts its registry of custom classes here while it deserialises.
  const {customObjects: _, ...rest} = config as Dict;
  const args: Dict = {};
  for (const [key, value] of Object.entries(toCamelCase(rest) as Dict)) {
    args[GROUPED_NAMES[key] ?? key] = value;
  }
  for (const key of ['kernelRegularizer', 'biasRegularizer']) {
    if (key in args) {
      args[key] = adaptRegularizer(args[key]);
    }
  }
  if ('dtype' in args) {
    args.dtype = adaptDType(args.dtype);
  }
  return args;
}
