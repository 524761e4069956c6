/**
 * npm run bench: times flashAttention forward and backward against tfjs' own matMul–softmax–matMul in the same run,
 * verifying first, and writes benchmarks/results/attention-<device>.json.
 */
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import * as tf from '@tensorflow/tfjs';

import '../src/index.js';

import {causalMask, flash, standardAttention} from './attention_kinds.js';
import type {Attention, Kind} from './attention_kinds.js';
import type {Result, ResultsFile, Skipped} from './attention_results.js';
import {describeEnvironment, slug, useBackend} from './environment.js';
import {peakBytes, time} from './timing.js';
import {gradientError, outputError} from './verify.js';

type Shape = Pick<Result, 'batch'|'heads'|'length'|'headSize'|'series'>;

const {values: args} = parseArgs({options: {
  backend: {type: 'string', default: 'webgpu'},
  lengths: {type: 'string', default: '512,1024,2048,4096,8192,16384'},
  sizes: {type: 'string', default: '64,128'},
  tokens: {type: 'string', default: '16384'},
  width: {type: 'string', default: '2048'},
  causal: {type: 'string', default: 'both'},
  out: {type: 'string', default: 'benchmarks/results'},
  seconds: {type: 'string', default: '0'}, // stop starting new shapes after this long; 0 is no limit
  only: {type: 'boolean', default: false}, // the sweep alone
}});

/** Relative errors above these mean that what is timed is not attention. Float32 at these lengths stays far below. */
const OUTPUT_TOLERANCE = 1e-4;
const GRADIENT_TOLERANCE = 1e-4;
/** Inputs are rotated so that the data of a run is not still in the cache from the one before. */
const CACHE_BYTES = 128 * 2 ** 20;

function shapes(): Shape[] {
  const list: Shape[] = [];
  for (const headSize of args.sizes.split(',').map(Number)) {
    for (const length of args.lengths.split(',').map(Number)) {
      const batch = Math.max(1, Number(args.tokens) / length);
      list.push({batch, heads: Number(args.width) / headSize, length, headSize, series: 'sweep'});
    }
  }
  if (!args.only) {
    list.unshift(
        {batch: 4, heads: 16, length: 2048, headSize: 64, series: 'target'},
        ...[16384, 32768, 65536].map(
            length => ({batch: 1, heads: 1, length, headSize: 64, series: 'one head'} as const)));
  }
  return list;
}

function bytesOf({batch, heads, length, headSize}: Shape): number {
  return 4 * batch * heads * length * headSize;
}

/** Why standard attention cannot run at a shape, if it cannot: its scores are one tensor of N² elements a head. */
function standardRefusal({batch, heads, length}: Shape): string|undefined {
  const scoreBytes = 4 * batch * heads * length * length;
  const {device} = tf.backend() as unknown as {device?: GPUDevice};
  const largest = device ? device.limits.maxStorageBufferBindingSize : 4 * 2 ** 30;
  return scoreBytes > largest ? `its scores take ${scoreBytes} bytes, over the ${largest} of a binding` : undefined;
}

interface Inputs {
  q: tf.Tensor4D;
  k: tf.Tensor4D;
  v: tf.Tensor4D;
  dO: tf.Tensor4D;
}

/** Numbers in [−1.7, 1.7], spread on the device: tfjs draws random tensors on the host, seconds for each of these. */
function makeInputs(shape: Shape, seed: number): Inputs {
  const {batch, heads, length, headSize} = shape;
  const draw = (n: number) => tf.tidy(() => {
    const place = (count: number, period: number) => tf.mod(tf.mul(tf.range(0, count), period), 2 * Math.PI);
    const rows = tf.reshape(place(batch * heads * length, 12.9898 + seed), [-1, 1]);
    const columns = tf.reshape(place(headSize, 78.233 + n), [1, -1]);
    const noise = tf.sin(tf.mul(tf.sin(tf.add(rows, columns)), 4375.5453 + 10 * seed + n));
    return tf.reshape(tf.mul(noise, 1.7), [batch, heads, length, headSize]) as tf.Tensor4D;
  });
  return {q: draw(1), k: draw(2), v: draw(3), dO: draw(4)};
}

async function measure(
    kind: Kind, attention: Attention, shape: Shape, causal: boolean, inputs: readonly Inputs[]): Promise<Result[]> {
  const forward = (n: number) => {
    const {q, k, v} = inputs[n % inputs.length];
    return attention(q, k, v);
  };
  const training = (n: number) => {
    const {q, k, v, dO} = inputs[n % inputs.length];
    const f = (...x: tf.Tensor[]) => attention(...x as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D]);
    return tf.tidy(() => tf.grads(f)([q, k, v], dO));
  };
  const {batch, heads, length, headSize} = shape;
  const flops = 4 * batch * heads * length ** 2 * headSize / (causal ? 2 : 1);
  const results: Result[] = [];
  for (const [pass, run, work, tensors] of [
    ['forward', forward, flops, 4], ['forward+backward', training, 3.5 * flops, 12],
  ] as const) {
    const peak = await peakBytes(() => run(0));
    const timing = await time(run);
    results.push({
      kind, pass, ...shape, causal, ...timing, tflops: work / timing.medianMs / 1e9,
      leastBytes: tensors * bytesOf(shape), peakBytes: peak,
    });
  }
  return results;
}

const adapter = await useBackend(args.backend);
const environment = describeEnvironment(adapter);
console.log(`${environment.device}, backend ${environment.backend}, commit ${environment.commit}`);
const results: Result[] = [];
const skipped: Skipped[] = [];
const started = performance.now();
for (const shape of shapes()) {
  const sets = Math.min(8, Math.max(2, Math.ceil(CACHE_BYTES / (4 * bytesOf(shape)))));
  const inputs = Array.from({length: sets}, (_, n) => makeInputs(shape, n));
  for (const causal of args.causal === 'both' ? [false, true] : [args.causal === 'true']) {
    const label = `B${shape.batch} H${shape.heads} N${shape.length} D${shape.headSize}${causal ? ' causal' : ''}`;
    if (Number(args.seconds) > 0 && performance.now() - started > 1000 * Number(args.seconds)) {
      skipped.push({...shape, causal, kind: 'flash', why: `the time given (--seconds ${args.seconds}) was over`});
      continue;
    }
    const {q, k, v, dO} = inputs[0];
    const output = flash(causal)(q, k, v);
    const errors = [await outputError(q, k, v, causal, output), await gradientError(q, k, v, causal, dO)];
    output.dispose();
    if (!(errors[0] <= OUTPUT_TOLERANCE && errors[1] <= GRADIENT_TOLERANCE)) {
      throw new Error(`${label}: wrong results, relative errors ${errors.join(' and ')}; nothing was timed`);
    }
    const mask = causal && !standardRefusal(shape) ? causalMask(shape.length) : undefined;
    for (const kind of ['flash', 'standard'] as const) {
      const why = kind === 'standard' ? standardRefusal(shape) : undefined;
      if (why) {
        skipped.push({...shape, causal, kind, why});
        console.log(`${label.padEnd(28)} ${kind.padEnd(9)} skipped: ${why}`);
        continue;
      }
      try {
        const attention = kind === 'flash' ? flash(causal) : standardAttention(mask);
        for (const result of await measure(kind, attention, shape, causal, inputs)) {
          results.push(result);
          console.log(
              `${label.padEnd(28)} ${kind.padEnd(9)} ${result.pass.padEnd(17)} ` +
              `${result.medianMs.toFixed(3).padStart(9)} ms ` +
              `±${(100 * result.spread).toFixed(0).padStart(2)}% ${result.tflops.toFixed(2).padStart(6)} TFLOP/s, ` +
              `peak ${(result.peakBytes / 2 ** 20).toFixed(1)} MiB`);
        }
      } catch (error) {
        skipped.push({...shape, causal, kind, why: (error as Error).message});
        console.log(`${label} ${kind} failed: ${(error as Error).message}`);
      }
    }
    mask?.dispose();
  }
  tf.dispose(inputs as unknown as tf.TensorContainer);
}
mkdirSync(args.out, {recursive: true});
const file = join(args.out, `attention-${slug(environment.device)}.json`);
const contents: ResultsFile = {environment, results, skipped};
writeFileSync(file, `${JSON.stringify(contents, null, 1)}\n`);
console.log(`written: ${file}`);
