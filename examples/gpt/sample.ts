import * as tf from '@tensorflow/tfjs';

import type {Rng} from './rng.js';
import type {Vocabulary} from './text.js';

export interface SampleOptions {
  readonly length: number;
  /** Below 1 favours what is likely. Default 0.8. */
  readonly temperature?: number;
}

function draw(logits: Float32Array, temperature: number, rng: Rng): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map(logit => Math.exp((logit - max) / temperature));
  let rest = rng.next() * weights.reduce((sum, weight) => sum + weight, 0);
  const place = weights.findIndex(weight => (rest -= weight) < 0);
  return place < 0 ? weights.length - 1 : place;
}

/**
 * Text that the model makes up after a prompt, symbol by symbol. The window is always of full length, filled up behind
 * the text with zeros that causal attention keeps out, so that a GPU compiles its kernels for one shape only.
 */
export async function* sampleText(
    model: tf.LayersModel, vocabulary: Vocabulary, context: number, prompt: string, rng: Rng,
    {length, temperature = 0.8}: SampleOptions): AsyncGenerator<string, void> {
  const ids = [...vocabulary.encode(prompt)];
  if (ids.length === 0) {
    ids.push(0);
  }
  for (let n = 0; n < length; n++) {
    const window = new Int32Array(context);
    const recent = ids.slice(-context);
    window.set(recent);
    const logits = tf.tidy(() => {
      const all = model.apply(tf.tensor2d(window, [1, context], 'int32')) as tf.Tensor3D;
      return tf.slice(all, [0, recent.length - 1, 0], [1, 1, vocabulary.size]);
    });
    const id = draw(await logits.data<'float32'>(), temperature, rng);
    logits.dispose();
    ids.push(id);
    yield vocabulary.symbols[id];
  }
}
