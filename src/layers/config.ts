import type {serialization} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';

import {MAX_HEAD_SIZE} from '../op/problem.js';

import {invalid} from './errors.js';
import {WEIGHT_FIELDS} from './weight_options.js';
import type {WeightArgs} from './weight_options.js';

type LayerArgs = NonNullable<ConstructorParameters<typeof layers.Layer>[0]>;

/**
 * Configuration of {@link FlashMultiHeadAttention}: that of Keras' `MultiHeadAttention`, in tfjs' spelling, with
 * `numKvHeads`, and with `useCausalMask` (a call argument in Keras) so that a saved model keeps it. `null` is as if
 * the field were left out.
 */
export interface FlashMultiHeadAttentionArgs extends LayerArgs, WeightArgs {
  /** Query heads, Hq. */
  numHeads: number;
  /** Size of a query and of a key in each head, 1 to 256. Scores are scaled by 1/√keyDim. */
  keyDim: number;
  /** Size of a value in each head, 1 to 256. Default `keyDim`. */
  valueDim?: number|null;
  /** Key/value heads, a divisor of `numHeads` (Keras' `GroupedQueryAttention`). Default `numHeads`. */
  numKvHeads?: number|null;
  /** Probability in [0, 1) that an attention weight is dropped in training. Default 0. */
  dropout?: number|null;
  /** Whether the four projections add a bias. Default true. */
  useBias?: boolean|null;
  /** Axes of the output after [B,T]. Default: the query's last axis. */
  outputShape?: number|number[]|null;
  /** Query i sees only keys j ≤ i ('top-left', as Keras). Default false. */
  useCausalMask?: boolean|null;
  /** Integer in [0, 2⁵³) that makes dropout repeatable; each call still drops others. Default: random. */
  seed?: number|null;
  /** Only Keras' own default for inputs of rank 3: axis 1. */
  attentionAxes?: number|number[]|null;
}

/** The configuration with every default filled in. */
export interface AttentionConfig {
  readonly numHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly numKvHeads: number;
  readonly dropout: number;
  readonly useBias: boolean;
  /** Undefined is the query's last axis. */
  readonly outputShape?: readonly number[];
  readonly useCausalMask: boolean;
  readonly seed?: number;
}

const LAYER_FIELDS = [
  'inputShape', 'batchInputShape', 'batchSize', 'dtype', 'name', 'trainable', 'weights', 'inputDType',
];
const OWN_FIELDS = [
  'numHeads', 'keyDim', 'valueDim', 'numKvHeads', 'dropout', 'useBias', 'outputShape', 'useCausalMask', 'seed',
  'attentionAxes', ...WEIGHT_FIELDS,
];
/** In Keras' configs; here only their "off" is possible. */
const UNSUPPORTED = ['activityRegularizer', 'slidingWindow', 'useGate', 'returnAttentionScores'];
/**
 * In saved configs, without influence on the result: which kernel Keras takes, how it masks rows that see nothing,
 * shapes that are known again when the layer is built, and what tfjs adds while it deserialises.
 */
const WITHOUT_INFLUENCE = [
  'flashAttention', 'softmaxRobustMasking', 'queryShape', 'keyShape', 'valueShape', 'customObjects',
];
const KNOWN: ReadonlySet<string> = new Set([...LAYER_FIELDS, ...OWN_FIELDS, ...UNSUPPORTED, ...WITHOUT_INFLUENCE]);

function positive(name: string, value: unknown, atMost = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || (value as number) < 1 || (value as number) > atMost) {
    const range = atMost === Number.MAX_SAFE_INTEGER ? 'a positive integer' : `an integer from 1 to ${atMost}`;
    throw invalid(range, name, value);
  }
  return value as number;
}

function flag(name: string, value: unknown, fallback: boolean): boolean {
  if (typeof (value ?? fallback) !== 'boolean') {
    throw invalid('a boolean', name, value);
  }
  return (value ?? fallback) as boolean;
}

function axesOf(value: unknown): number[]|undefined {
  if (value == null) {
    return undefined;
  }
  const axes = Array.isArray(value) ? value : [value];
  if (axes.length === 0 || !axes.every(n => Number.isSafeInteger(n) && n > 0)) {
    throw invalid('a positive integer or an array of them', 'outputShape', value);
  }
  return [...axes];
}

function refuseUnsupported(args: Readonly<Record<string, unknown>>): void {
  for (const key of Object.keys(args)) {
    if (!KNOWN.has(key)) {
      throw invalid(`one of ${OWN_FIELDS.join(', ')}`, 'the name of a config field', key);
    }
  }
  for (const key of UNSUPPORTED) {
    if (args[key] != null && args[key] !== false) {
      throw invalid('nothing (not supported)', key, args[key]);
    }
  }
  const axes = args.attentionAxes;
  if (axes != null && ![axes].flat().every(axis => axis === 1) || Array.isArray(axes) && axes.length !== 1) {
    throw invalid('[1], the only axis between batch and features', 'attentionAxes', axes);
  }
  if (args.dtype != null && args.dtype !== 'float32') {
    throw invalid('\'float32\' (tfjs has no other float)', 'dtype', args.dtype);
  }
}

/** Checks a configuration and fills in the defaults. Weight options and the fields of every layer are left to tfjs. */
export function resolveConfig(args: FlashMultiHeadAttentionArgs): AttentionConfig {
  if (args === null || typeof args !== 'object' || Array.isArray(args)) {
    throw invalid('an object with numHeads and keyDim', 'the configuration', args);
  }
  refuseUnsupported(args as unknown as Record<string, unknown>);
  const numHeads = positive('numHeads', args.numHeads);
  const keyDim = positive('keyDim', args.keyDim, MAX_HEAD_SIZE);
  const numKvHeads = positive('numKvHeads', args.numKvHeads ?? numHeads);
  if (numHeads % numKvHeads !== 0) {
    throw invalid(`a divisor of numHeads, ${numHeads}`, 'numKvHeads', numKvHeads);
  }
  const dropout = args.dropout ?? 0;
  if (typeof dropout !== 'number' || !(dropout >= 0 && dropout < 1)) {
    throw invalid('a probability in [0, 1)', 'dropout', dropout);
  }
  const seed = args.seed ?? undefined;
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw invalid('an integer in [0, 2^53)', 'seed', seed);
  }
  return {
    numHeads, keyDim, numKvHeads, dropout, seed,
    valueDim: positive('valueDim', args.valueDim ?? keyDim, MAX_HEAD_SIZE),
    useBias: flag('useBias', args.useBias, true),
    outputShape: axesOf(args.outputShape),
    useCausalMask: flag('useCausalMask', args.useCausalMask, false),
  };
}

/** The part of the layer's `getConfig()` that {@link resolveConfig} reads back. */
export function serializeConfig(config: AttentionConfig): serialization.ConfigDict {
  return {
    ...config,
    outputShape: config.outputShape === undefined ? null : [...config.outputShape],
    seed: config.seed ?? null,
  };
}
