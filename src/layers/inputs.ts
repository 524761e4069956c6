import {invalid} from './errors.js';

/** A size, or null where a model does not know it yet. */
export type Shape = Array<number|null>;

interface Shaped {
  readonly shape: Shape;
}

/** The layer's array of inputs by what each is for. */
export interface Roles<T> {
  /** [B,T,Dq] */
  readonly query: T;
  /** [B,S,Dv]; the query itself in self-attention. */
  readonly value: T;
  /** [B,S,Dk]; the value itself when not given. */
  readonly key: T;
  /** [B,S]: which keys may be seen at all. */
  readonly paddingMasks: readonly T[];
  /** [B,T,S], or rank 4, broadcastable to [B,Hq,T,S]. */
  readonly attentionMasks: readonly T[];
}

const ORDER = '[query, value, key] of rank 3, then masks of rank 2 to 4';

/**
 * tfjs' executor passes a layer its inputs and nothing else, so masks that a graph computes come as inputs too, told
 * apart by rank alone (all that `build` gets to see): up to three of rank 3 are query, value and key, in Keras'
 * order; after them rank 2 is a padding mask, and rank 3 or 4 an attention mask. So an attention mask of rank 3
 * needs a key before it, which may be the value again.
 */
export function rolesOf<T extends Shaped>(inputs: readonly T[]): Roles<T> {
  let main = 0;
  while (main < Math.min(3, inputs.length) && inputs[main].shape.length === 3) {
    main++;
  }
  const masks = inputs.slice(main);
  if (main === 0 || masks.some(mask => mask.shape.length < 2 || mask.shape.length > 4)) {
    throw invalid(ORDER, 'the inputs', inputs.map(input => input.shape));
  }
  const [query, value = query, key = value] = inputs.slice(0, main);
  return {
    query, value, key,
    paddingMasks: masks.filter(mask => mask.shape.length === 2),
    attentionMasks: masks.filter(mask => mask.shape.length > 2),
  };
}

/** Last axes of query, value and key, which the kernels are built for. */
export interface FeatureSizes {
  readonly query: number;
  readonly value: number;
  readonly key: number;
}

const agree = (a: number|null, b: number|null) => a === null || b === null || a === b;

/** Checks that query, value and key belong together, as far as their shapes are known. */
export function checkShapes({query, value, key}: Roles<Shaped>, built?: FeatureSizes): void {
  const [batch] = query.shape;
  for (const [name, {shape}] of [['value', value], ['key', key]] as const) {
    if (!agree(shape[0], batch)) {
      throw invalid(`the batch size of the query, ${batch}`, name, shape);
    }
  }
  if (!agree(key.shape[1], value.shape[1])) {
    throw invalid(`the length of the value, ${value.shape[1]} (axis 1)`, 'key', key.shape);
  }
  for (const [name, {shape}] of [['query', query], ['value', value], ['key', key]] as const) {
    if (built && !agree(shape[2], built[name])) {
      throw invalid(`the last axis that the layer was built with, ${built[name]}`, name, shape);
    }
  }
}

/** Sizes to build the kernels for. */
export function featureSizes(roles: Roles<Shaped>): FeatureSizes {
  checkShapes(roles);
  const size = (name: 'query'|'value'|'key') => {
    const features = roles[name].shape[2];
    if (!Number.isSafeInteger(features) || features! < 1) {
      throw invalid('a known last axis', name, roles[name].shape);
    }
    return features!;
  };
  return {query: size('query'), value: size('value'), key: size('key')};
}

/** tfjs passes one shape bare and several as an array. */
export function shapesOf(inputShape: Shape|Shape[]): Shaped[] {
  const list = Array.isArray(inputShape[0]) ? inputShape as Shape[] : [inputShape as Shape];
  return list.map(shape => ({shape}));
}
