import {reshape, scalar, tidy, where} from '@tensorflow/tfjs-core';
import type {NamedTensorMap, serialization, Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {layers, SymbolicTensor} from '@tensorflow/tfjs-layers';

import {flashAttention} from '../op/flash_attention.js';
import {philox4x32, philoxKey} from '../op/philox.js';

import {checkCallOptions, refuseSymbolicOptions} from './call_options.js';
import {resolveConfig, serializeConfig} from './config.js';
import type {AttentionConfig, FlashMultiHeadAttentionArgs} from './config.js';
import {invalid} from './errors.js';
import {checkShapes, featureSizes, rolesOf, shapesOf} from './inputs.js';
import type {FeatureSizes, Shape} from './inputs.js';
import {adaptKerasConfig} from './keras_config.js';
import {findKerasWeights} from './keras_weights.js';
import type {PassesFirstMask} from './mask_origin.js';
import {attentionMasks} from './masks.js';
import {project} from './projection.js';
import type {Projection} from './projection.js';
import {attachedMask, paddingMask} from './received_masks.js';
import type {MaybeMask} from './received_masks.js';
import {registerOnce} from './register.js';
import {symbolicInputs} from './symbolic_inputs.js';
import {resolveWeightOptions} from './weight_options.js';
import type {WeightOptions} from './weight_options.js';

type OneOrMore<T> = T|T[];
type ProjectionName = 'query'|'key'|'value'|'attention_output';

/** What {@link FlashMultiHeadAttention.attend} computes with. */
export interface AttendOptions {
  /** bool, each axis 1 or as in [B,Hq,T,S]; true attends. */
  readonly mask?: Tensor4D;
  /** Query i sees only keys j ≤ i. */
  readonly causal: boolean;
  /** 0 outside training. */
  readonly dropoutP: number;
  /** Another for each call when the layer has a seed; undefined lets the op draw one. */
  readonly seed?: number;
}

/**
 * Multi-head attention for tfjs' LayersModels with the configuration, weights and results of Keras'
 * `MultiHeadAttention` and `GroupedQueryAttention` (Vaswani et al., "Attention is all you need", 2017; Ainslie et
 * al., "GQA", 2023), computed by {@link flashAttention}: memory grows with the lengths, not with their product.
 *
 * Inputs: `query` [B,T,Dq] alone for self-attention, or an array `[query, value]` or `[query, value, key]` with
 * `value` [B,S,Dv] and `key` [B,S,Dk], all float32. Masks that a graph computes follow in the array: rank 2, [B,S],
 * says which keys may be seen (ANDed, instead of the masks of value and key); rank 4, broadcastable to [B,Hq,T,S],
 * or rank 3, [B,T,S], and then only after all three of query, value and key, is an attention mask.
 * Output: [B,T,Dq], or [B,T,...outputShape].
 *
 * ```js
 * const x = tf.input({shape: [128, 64]});
 * const y = new FlashMultiHeadAttention({numHeads: 8, keyDim: 8, useCausalMask: true}).apply(x);
 * const model = tf.model({inputs: x, outputs: y});
 * ```
 *
 * Masks are combined by AND, as in Keras: those that Embedding, Masking and the layers after them pass on (query,
 * value and key), call arguments (see {@link AttentionCallOptions}), and mask inputs. The output carries on the
 * query's mask. Two things differ:
 * - A query whose mask is false, or that sees no key, gets no attention: its output is the bias of the output
 *   projection (zeros without bias) and no gradient flows through it. Keras computes an average over keys that it
 *   should not see there, a different one on each of its backends.
 * - Keras 3 takes the mask off the tensors that it attends to, so what reads them later has none; here, as in Keras 2,
 *   it stays.
 *
 * tfjs gives a nested model the mask of its first input alone, for whatever in it comes from an input, and takes none
 * out of it. Pass further masks in as inputs (see {@link FlashAttentionMask}).
 *
 * Weights, in Keras' order, with N = numHeads, M = numKvHeads, H = keyDim, V = valueDim: `query/kernel` [Dq,N,H],
 * `query/bias` [N,H], `key/kernel` [Dk,M,H], `key/bias` [M,H], `value/kernel` [Dv,M,V], `value/bias` [M,V],
 * `attention_output/kernel` [N,V,...outputShape], `attention_output/bias` [...outputShape].
 */
export class FlashMultiHeadAttention extends layers.Layer implements PassesFirstMask {
  static className = 'FlashMultiHeadAttention';

  readonly passesFirstMask = true;
  protected readonly config: AttentionConfig;
  private readonly weightOptions: WeightOptions;
  /** Set by `build`. */
  private projections?: Record<ProjectionName, Projection>;
  private features?: FeatureSizes;
  private calls = 0;

  /** @throws `FlashMultiHeadAttention: expected … for …, received …` on a bad or unknown field. */
  constructor(args: FlashMultiHeadAttentionArgs) {
    const config = resolveConfig(args);
    const weightOptions = resolveWeightOptions(args);
    super(args);
    this.config = config;
    this.weightOptions = weightOptions;
    this.supportsMasking = true;
  }

  /** Reads this layer's config and Keras' (2 or 3, MultiHeadAttention or GroupedQueryAttention), snake_case too. */
  static override fromConfig<T extends serialization.Serializable>(
      cls: new(args: FlashMultiHeadAttentionArgs) => T, config: serialization.ConfigDict): T {
    return new cls(adaptKerasConfig(config) as unknown as FlashMultiHeadAttentionArgs);
  }

  override getConfig(): serialization.ConfigDict {
    return {...super.getConfig(), ...serializeConfig(this.config), ...this.weightOptions.config};
  }

  override build(inputShape: OneOrMore<Shape>): void {
    const features = featureSizes(rolesOf(shapesOf(inputShape)));
    const {numHeads, numKvHeads, keyDim, valueDim, outputShape = [features.query]} = this.config;
    this.projections = {
      query: this.addProjection('query', [features.query], [numHeads, keyDim]),
      key: this.addProjection('key', [features.key], [numKvHeads, keyDim]),
      value: this.addProjection('value', [features.value], [numKvHeads, valueDim]),
      attention_output: this.addProjection('attention_output', [numHeads, valueDim], outputShape),
    };
    this.features = features;
    this.built = true;
  }

  private addProjection(name: ProjectionName, inputs: readonly number[], outputs: readonly number[]): Projection {
    const o = this.weightOptions;
    return {
      kernel: this.addWeight(
          `${name}/kernel`, [...inputs, ...outputs], 'float32', o.kernelInitializer, o.kernelRegularizer, true,
          o.kernelConstraint),
      bias: this.config.useBias ?
          this.addWeight(
              `${name}/bias`, [...outputs], 'float32', o.biasInitializer, o.biasRegularizer, true, o.biasConstraint) :
          undefined,
    };
  }

  override computeOutputShape(inputShape: OneOrMore<Shape>): Shape {
    const roles = rolesOf(shapesOf(inputShape));
    checkShapes(roles, this.features);
    const [batch, length, size] = roles.query.shape;
    return [batch, length, ...this.config.outputShape ?? [size]];
  }

  /**
   * @param kwargs {@link AttentionCallOptions}, with tensors only: on symbolic tensors tfjs would drop them when the
   *     model runs, so there they are refused.
   */
  override apply(inputs: OneOrMore<Tensor>|OneOrMore<SymbolicTensor>, kwargs?: Record<string, unknown>):
      OneOrMore<Tensor>|OneOrMore<SymbolicTensor> {
    const list = [inputs].flat() as Array<Tensor|SymbolicTensor>;
    if (list.length === 0 || !list.every(input => input instanceof SymbolicTensor)) {
      return super.apply(inputs, kwargs);
    }
    refuseSymbolicOptions(kwargs ?? {}, this.config.useCausalMask);
    const wired = symbolicInputs(list);
    return super.apply(wired.length === 1 ? wired[0] : wired);
  }

  override call(inputs: OneOrMore<Tensor>, kwargs: Record<string, unknown>): Tensor {
    return tidy(() => {
      this.invokeCallHook(inputs, kwargs);
      const options = checkCallOptions(kwargs ?? {});
      const roles = rolesOf([inputs].flat());
      for (const name of ['query', 'value', 'key'] as const) {
        if (roles[name].dtype !== 'float32') {
          throw invalid('a float32 tensor of rank 3', name, roles[name]);
        }
      }
      checkShapes(roles, this.features);
      const masks = attentionMasks(this, inputs, roles, options, this.config.numHeads);
      const {numHeads, numKvHeads, keyDim, valueDim, outputShape, dropout} = this.config;
      const {query, value, key} = roles;
      const heads = (name: 'query'|'key'|'value', x: Tensor, count: number, size: number) =>
          reshape(project(x, this.projections![name], x.shape[2]!), [x.shape[0], x.shape[1]!, count, size]) as Tensor4D;
      const attended = this.attend(
          heads('query', query, numHeads, keyDim), heads('key', key, numKvHeads, keyDim),
          heads('value', value, numKvHeads, valueDim), {
            mask: masks.attention,
            causal: options.useCausalMask ?? this.config.useCausalMask,
            dropoutP: options.training ? dropout : 0,
            seed: options.training && dropout > 0 ? this.nextSeed() : undefined,
          });
      const [batch, length, size] = query.shape;
      let rows: Tensor = reshape(attended, [batch * length!, numHeads * valueDim]);
      if (masks.query) {
        rows = where(reshape(masks.query, [batch * length!, 1]), rows, scalar(0));
      }
      const output = project(rows, this.projections!.attention_output, numHeads * valueDim);
      return reshape(output, [batch, length!, ...outputShape ?? [size!]]);
    });
  }

  /**
   * The attention itself, on projected heads; a subclass may compute it another way.
   * @param query [B,T,Hq,D]
   * @param key [B,S,Hkv,D]; Hq is a multiple of Hkv.
   * @param value [B,S,Hkv,Dv]
   * @returns [B,T,Hq,Dv]; zeros for a query that sees no key.
   */
  protected attend(query: Tensor4D, key: Tensor4D, value: Tensor4D, options: AttendOptions): Tensor4D {
    const {mask, causal, dropoutP, seed} = options;
    return flashAttention(query, key, value, {
      causal, causalAlignment: 'top-left', dropoutP,
      ...mask && {mask},
      ...seed !== undefined && {seed},
    });
  }

  /** Seeds of one layer are 53 bits of Philox, counted by call: layers with neighbouring seeds share none. */
  private nextSeed(): number|undefined {
    if (this.config.seed === undefined) {
      return undefined;
    }
    const [low, high] = philox4x32([this.calls++, 0, 0, 0], philoxKey(this.config.seed));
    return low + (high % 2 ** 21) * 2 ** 32;
  }

  /** The query's mask, [B,T], as Keras. */
  override computeMask(inputs: OneOrMore<Tensor>, mask?: OneOrMore<Tensor>): Tensor {
    return tidy(() => {
      const [query] = [inputs].flat();
      // `apply` on tensors knows no masks and passes undefined; a model that runs passes an array.
      const own: MaybeMask = mask === undefined ? attachedMask(query) : [mask].flat()[0];
      // tfjs' own type leaves out that there may be none. A dead mask is `call`'s to judge, where it matters.
      return own == null || own.isDisposed ? null! :
                                             paddingMask(own, [query.shape[0], query.shape[1]!], 'queryMask');
    });
  }

  /**
   * Sets every weight from a name → tensor map as found in Keras' files: `query/kernel:0`,
   * `mha/attention_output/bias`, `attentionOutput/bias`, `layers/mha/query_dense/vars/0`. Tensors are copied.
   * (`setWeights` takes Keras' `get_weights()` in order.)
   * @param prefix the folder that ends with this layer's name in the file, where the map holds other layers as well.
   * @throws listing everything missing, unexpected, ambiguous or of the wrong shape; then nothing has been set.
   */
  loadKerasWeights(weights: NamedTensorMap, prefix?: string): void {
    if (!this.projections) {
      throw invalid(
          'a layer that has been applied or built', 'loadKerasWeights', `${this.name}, which has no weights yet`);
    }
    const expected = (Object.entries(this.projections) as Array<[string, Projection]>)
        .flatMap(([name, {kernel, bias}]) => [
          {name: `${name}/kernel`, variable: kernel},
          ...bias ? [{name: `${name}/bias`, variable: bias}] : [],
        ])
        .map(({name, variable}) => ({name, variable, shape: variable.shape as number[]}));
    const found = findKerasWeights(expected, weights, prefix);
    tidy(() => expected.forEach(({variable}, i) => variable.write(found[i])));
  }
}

registerOnce(FlashMultiHeadAttention);
