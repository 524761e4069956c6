/**
 * What options cost: milliseconds of calls with them and without, forward, and forward and backward.
 *   npx tsx benchmarks/option_cost.ts [--shapes 4x32x4096x64,4x16x4096x128] [--types float16,float32] [--only padding]
 * A shape is batch x heads x length x head size. TFLOP/s are counted as if no key were hidden.
 */
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import {alibiSlopes, flashAttention} from '../src/index.js';
import type {ComputeType, FlashAttentionOptions} from '../src/index.js';

import {forwardFlops, STEP_FLOPS} from './core/flops.js';
import {bindingProblem, spreadNumbers} from './core/inputs.js';
import type {AttentionShape} from './core/results.js';
import {time} from './core/timing.js';
import {describeEnvironment, measuringFlags, useBackend} from './environment.js';

const {values: args} = parseArgs({options: {
  shapes: {type: 'string', default: '4x32x4096x64,4x16x4096x128'},
  types: {type: 'string', default: 'float16,float32'},
  only: {type: 'string', default: ''}, // of OPTIONS, separated by commas
  dawn: {type: 'string', default: ''},
}});
const list = (text: string) => text.split(',').filter(Boolean);

type Sees = (query: number, key: number) => boolean;

/** A mask that all heads share: [1,1,N,N]. */
function wholeMask(length: number, sees: Sees): FlashAttentionOptions {
  const shown = new Uint8Array(length * length);
  for (let n = 0; n < shown.length; n++) {
    shown[n] = Number(sees(Math.floor(n / length), n % length));
  }
  return {mask: tf.tensor(shown, [1, 1, length, length], 'bool')};
}

const OPTIONS: {readonly [name: string]: (shape: AttentionShape) => FlashAttentionOptions} = {
  none: () => ({}),
  // [B,1,1,N]: the last tenth of every sequence.
  padding: ({batch, length}) => ({
    mask: tf.tensor(
        Uint8Array.from({length: batch * length}, (_, n) => Number(n % length < length * 0.9)), [batch, 1, 1, length],
        'bool'),
  }),
  whole: ({length}) => wholeMask(length, () => true),
  random: ({length}) => wholeMask(length, (query, key) => (query * 7919 + key * 104729 >> 3) % 3 !== 0),
  // Blocks of 128 on the diagonal, and every eighth.
  sparse: ({length}) => wholeMask(length, (query, key) => query >> 7 === key >> 7 || (key >> 7) % 8 === 0),
  causal: () => ({causal: true}),
  window: ({length}) => ({causal: true, windowSize: [length / 8, 0]}),
  lengths: ({batch, length}) => ({keyLengths: Int32Array.from({length: batch}, (_, n) => length - 64 * n - 1)}),
  softcap: () => ({softcap: 20}),
  alibi: ({heads}) => ({alibiSlopes: alibiSlopes(heads)}),
  sinks: ({heads}) => ({sinks: tf.zeros([heads])}),
  dropout: () => ({dropoutP: 0.1, seed: 7}),
  // [1,H,N,N]
  bias: ({heads, length}) => ({bias: spreadNumbers([1, heads, length, length], 5)}),
};

function parseShape(text: string): AttentionShape {
  const [batch, heads, length, headSize] = text.split('x').map(Number);
  if (![batch, heads, length, headSize].every(n => Number.isSafeInteger(n) && n > 0)) {
    throw new Error(`expected batch x heads x length x head size for --shapes, received ${text}`);
  }
  return {batch, heads, length, headSize};
}

async function measure(shape: AttentionShape, name: string, computeType: ComputeType): Promise<string> {
  const {batch, heads, length, headSize} = shape;
  const problem = name === 'bias' && bindingProblem('a bias', 4 * heads * length ** 2);
  if (problem) {
    return `not measured: ${problem}`;
  }
  const [q, k, v, dO] = [1, 2, 3, 4].map(seed => spreadNumbers([batch, heads, length, headSize], seed));
  const options = OPTIONS[name](shape);
  const attend = (...x: tf.Tensor[]) => flashAttention(
      ...x as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D], {layout: 'bhnd', computeType, ...options});
  const timing = {batches: 5, warmUpMs: 300};
  const forward = await time(() => attend(q, k, v), timing);
  const step = await time(() => tf.tidy(() => tf.grads(attend)([q, k, v], dO)), timing);
  tf.dispose([q, k, v, dO, options as unknown as tf.TensorContainer]);
  const flops = forwardFlops({...shape, causal: false});
  const show = (ms: number, share: number) =>
      `${ms.toFixed(3).padStart(9)} ms ${(share * flops / ms / 1e9).toFixed(1).padStart(6)} TFLOP/s`;
  return `forward ${show(forward.medianMs, 1)}, with backward ${show(step.medianMs, STEP_FLOPS)}`;
}

const environment = describeEnvironment(await useBackend('webgpu', measuringFlags(list(args.dawn))));
console.log(`${environment.device}, commit ${environment.commit}`);
const names = args.only === '' ? Object.keys(OPTIONS) : list(args.only);
const unknown = names.find(name => !(name in OPTIONS));
if (unknown !== undefined) {
  throw new Error(`expected ${Object.keys(OPTIONS).join(', ')} for --only, received ${unknown}`);
}
for (const text of list(args.shapes)) {
  for (const computeType of list(args.types) as ComputeType[]) {
    for (const name of names) {
      console.log(`${text} ${computeType} ${name.padEnd(8)} ${await measure(parseShape(text), name, computeType)}`);
    }
  }
}
process.exit(0); // Dawn keeps Node alive
