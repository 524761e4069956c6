import * as tf from '@tensorflow/tfjs';

import {StandardMultiHeadAttention} from './attention.js';
import type {AttentionKind} from './attention.js';
import {Linear, RmsNorm, TextEmbedding} from './layers.js';
import {Rng} from './rng.js';
import {FlashMultiHeadAttention} from '../../src/layers/index.js';

/** The size of a GPT. */
export interface GptShape {
  readonly symbols: number;
  readonly context: number;
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
}

const MLP_FACTOR = 4;
/** Longest wavelength of the first place vectors is 2π times this. 12, 100 and 1000 learned more slowly. */
const LONGEST = 30;
/**
 * Size of the sum over all blocks. Every reader of it normalises it, so it only decides how fast Adam, whose steps do
 * not depend on the size of a weight, turns it round. 1 learned more slowly; 2 to 4 are alike.
 */
const STREAM_SCALE = 3;

/**
 * A GPT as a tfjs LayersModel: token numbers [B,T] (int32, T ≤ context) → logits [B,T,symbols]. Pre-norm blocks of
 * causal self-attention and a GELU MLP, no biases. Both kinds of attention have the same weights under the same names,
 * and start from the same values.
 */
export function buildGpt(shape: GptShape, attention: AttentionKind, seed: number): tf.LayersModel {
  const {symbols, context, layers, heads, width} = shape;
  const attentionLayer = attention === 'flash' ? FlashMultiHeadAttention : StandardMultiHeadAttention;
  const ids = tf.input({shape: [null], dtype: 'int32', name: 'ids'});
  const then = (layer: tf.layers.Layer, x: tf.SymbolicTensor|tf.SymbolicTensor[]) =>
      layer.apply(x) as tf.SymbolicTensor;

  let x = then(new TextEmbedding({name: 'embedding', symbols, context, width}), ids);
  for (let n = 0; n < layers; n++) {
    const name = (part: string) => `block_${n}_${part}`;
    const attended = then(
        new attentionLayer({
          name: name('attention'),
          numHeads: heads,
          keyDim: width / heads,
          useCausalMask: true,
          useBias: false,
          kernelInitializer: 'zeros',
        }),
        then(new RmsNorm({name: name('attention_norm')}), x));
    x = then(tf.layers.add({name: name('attention_sum')}), [x, attended]);
    const hidden = then(
        new Linear({name: name('mlp_up'), units: MLP_FACTOR * width, gelu: true}),
        then(new RmsNorm({name: name('mlp_norm')}), x));
    const mlp = then(new Linear({name: name('mlp_down'), units: width}), hidden);
    x = then(tf.layers.add({name: name('mlp_sum')}), [x, mlp]);
  }
  const logits = then(new Linear({name: 'head', units: symbols}), then(new RmsNorm({name: 'norm'}), x));
  const model = tf.model({inputs: ids, outputs: logits, name: 'gpt'});
  initialise(model, shape, seed);
  return model;
}

/** The weights with names that do not depend on what else was built in the process. */
export function namedWeights(model: tf.LayersModel): Array<{name: string, variable: tf.Variable}> {
  return model.layers.flatMap(layer => layer.trainableWeights.map(weight => ({
    name: weight.originalName,
    variable: weight.read() as tf.Variable,
  })));
}

/** Weights whose results go into the sum over all blocks. */
const isOutward = (name: string): boolean => /attention_output|mlp_down/.test(name);

/** Sines and cosines of wavelengths from 2π to 2π·LONGEST along the width (Vaswani et al., 2017), of RMS 1. */
function sinusoids(context: number, width: number): Float32Array {
  return Float32Array.from({length: context * width}, (_, n) => {
    const [place, column] = [Math.floor(n / width), n % width];
    const angle = place / LONGEST ** (2 * (column >> 1) / width);
    return Math.SQRT2 * (column % 2 === 0 ? Math.sin(angle) : Math.cos(angle));
  });
}

/**
 * Matrices start normal, with variance 1/inputs, and 1/(2·layers) of that where they lead into the sum over all blocks
 * (Radford et al., GPT-2, 2019); gains at 1; the head at 0, so that every symbol is equally likely. Places start as
 * sinusoids: random ones keep a small model at the bigram's loss for hundreds of steps before any head finds the symbol
 * before (512 tokens a step, 600 steps: 2.41, against 2.11 with sinusoids).
 */
function initialise(model: tf.LayersModel, {layers, width, context}: GptShape, seed: number) {
  const rng = new Rng(seed);
  for (const {name, variable} of namedWeights(model)) {
    if (name.endsWith('gain') || name.startsWith('head')) {
      continue;
    }
    const isEmbedding = name.startsWith('embedding');
    const inputs = isEmbedding ? 1 : name.includes('mlp_down') ? MLP_FACTOR * width : width;
    const scale = isEmbedding ? STREAM_SCALE : isOutward(name) ? STREAM_SCALE / Math.sqrt(2 * layers) : 1;
    const values = name === 'embedding/places' ? sinusoids(context, width) :
                                                 Float32Array.from({length: variable.size}, () => rng.normal());
    const stddev = scale / Math.sqrt(inputs);
    tf.tidy(() => variable.assign(tf.tensor(values.map(value => value * stddev), variable.shape)));
  }
}
