import {layers} from '@tensorflow/tfjs-layers';
import type {constraints, initializers, regularizers} from '@tensorflow/tfjs-layers';
import type {serialization} from '@tensorflow/tfjs-core';

import {invalid} from './errors.js';

type DenseArgs = Parameters<typeof layers.dense>[0];
type Initializer = ReturnType<typeof initializers.zeros>;
type Regularizer = ReturnType<typeof regularizers.l2>;
type Constraint = ReturnType<typeof constraints.nonNeg>;

/**
 * How weights start, are penalised and are constrained: instances, tfjs' names (`'glorotUniform'`), or configs.
 * tfjs applies constraints of any layer where weights are written (`setWeights`, loading), but not in `model.fit`.
 */
export interface WeightArgs {
  /** Default `'glorotUniform'`. */
  kernelInitializer?: DenseArgs['kernelInitializer']|null;
  /** Default `'zeros'`. */
  biasInitializer?: DenseArgs['biasInitializer']|null;
  /** Default none. */
  kernelRegularizer?: DenseArgs['kernelRegularizer']|null;
  /** Default none. */
  biasRegularizer?: DenseArgs['biasRegularizer']|null;
  /** Default none. */
  kernelConstraint?: DenseArgs['kernelConstraint']|null;
  /** Default none. */
  biasConstraint?: DenseArgs['biasConstraint']|null;
}

/** The same as objects, with their serialised form. */
export interface WeightOptions {
  readonly kernelInitializer: Initializer;
  readonly biasInitializer: Initializer;
  readonly kernelRegularizer?: Regularizer;
  readonly biasRegularizer?: Regularizer;
  readonly kernelConstraint?: Constraint;
  readonly biasConstraint?: Constraint;
  readonly config: serialization.ConfigDict;
}

const KINDS = {
  kernelInitializer: 'an initializer', biasInitializer: 'an initializer',
  kernelRegularizer: 'a regularizer', biasRegularizer: 'a regularizer',
  kernelConstraint: 'a constraint', biasConstraint: 'a constraint',
} as const;

export const WEIGHT_FIELDS = Object.keys(KINDS) as Array<keyof typeof KINDS>;

const DEFAULTS: WeightArgs = {kernelInitializer: 'glorotUniform', biasInitializer: 'zeros'};

/**
 * tfjs-layers exports neither the functions that turn a name or config into an initializer, regularizer or
 * constraint, nor those that serialise one. Its Dense layer does both, and is free as long as nobody builds it.
 */
export function resolveWeightOptions(args: WeightArgs): WeightOptions {
  const resolved: Record<string, unknown> = {};
  const config: serialization.ConfigDict = {};
  for (const field of WEIGHT_FIELDS) {
    const given = args[field] ?? DEFAULTS[field] ?? undefined;
    let dense: layers.Layer;
    try {
      // A name of its own, or tfjs would count it among the user's Dense layers when it numbers them.
      dense = layers.dense({units: 1, name: 'weight_options', [field]: given});
    } catch (error) {
      throw invalid(`${KINDS[field]} that tfjs knows (${(error as Error).message.split('.')[0]})`, field, given);
    }
    resolved[field] = (dense as unknown as Record<string, unknown>)[field] ?? undefined;
    config[field] = dense.getConfig()[field];
  }
  return {...resolved, config} as unknown as WeightOptions;
}
