import * as tf from '@tensorflow/tfjs';

import '../../src/index.js';
import {emptyPool, peakBytes} from '../../examples/gpt/measure.js';

import {causalMask, flash, standardAttention} from './attention_kinds.js';
import type {Attention} from './attention_kinds.js';
import {forwardFlops, STEP_FLOPS} from './flops.js';
import {bindingProblem, rotations, spreadNumbers} from './inputs.js';
import type {AttentionMeasurement} from './measurements.js';
import {NotMeasured} from './not_measured.js';
import type {AttentionRow, AttentionShape, Pass} from './results.js';
import {gpuTime, time} from './timing.js';
import type {Run} from './timing.js';
import {tolerance, withVariant} from './variants.js';
import {gradientError, lastHead} from './verify.js';
import {outputError} from './verify_rows.js';

/** More than the caches of GPUs hold. */
const CACHE_BYTES = 128 * 2 ** 20;
const MOST_SETS = 8;

interface Inputs {
  q: tf.Tensor4D;
  k: tf.Tensor4D;
  v: tf.Tensor4D;
  dO: tf.Tensor4D;
}

const bytesOf = ({batch, heads, length, headSize}: AttentionShape): number => 4 * batch * heads * length * headSize;

let current: {key: string, sets: Inputs[]}|undefined;

/** The inputs of a shape, kept until another shape comes. */
async function inputsOf(shape: AttentionShape): Promise<Inputs[]> {
  const {batch, heads, length, headSize} = shape;
  const key = [batch, heads, length, headSize].join();
  if (current?.key !== key) {
    await forgetInputs();
    const sets = Math.max(2, rotations(4 * bytesOf(shape), CACHE_BYTES, MOST_SETS));
    const make = (seed: number) => spreadNumbers([batch, heads, length, headSize], seed);
    current = {
      key,
      sets: Array.from({length: sets}, (_, n) =>
          ({q: make(4 * n), k: make(4 * n + 1), v: make(4 * n + 2), dO: make(4 * n + 3)})),
    };
  }
  return current.sets;
}

/** Frees the inputs, and the buffers that tfjs keeps of them. */
export async function forgetInputs(): Promise<void> {
  tf.dispose(current?.sets as unknown as tf.TensorContainer);
  current = undefined;
  await emptyPool();
}

/** Output, and for this package the gradients: what comes out wrong is not timed. */
async function verify(m: AttentionMeasurement, attention: Attention, {q, k, v, dO}: Inputs): Promise<number> {
  const {kind, causal, length, variant} = m;
  const output = attention(q, k, v);
  const [head, keys, values, result] = [q, k, v, output].map(lastHead);
  const error =
      await outputError({q: head, k: keys, v: values, output: result, queries: length, keys: length, causal});
  output.dispose();
  const gradient = kind === 'flash' ? await gradientError(q, k, v, causal, dO, variant) : 0;
  const allowed = m.tolerance ?? tolerance(variant);
  if (!(error <= allowed && gradient <= allowed)) {
    throw new Error(`wrong results: relative error ${error} of the output, ${gradient} of the gradients`);
  }
  return error;
}

/** Forward, then forward and backward, of this package or of tfjs' own ops. */
export async function measureAttention(m: AttentionMeasurement, emit: (row: AttentionRow) => void): Promise<void> {
  const {kind, variant, batch, heads, length, headSize, causal, series, backend, native} = m;
  const shape = {batch, heads, length, headSize};
  const problem = kind === 'standard' ? bindingProblem('a matrix of scores', 4 * batch * heads * length ** 2) :
                                        undefined;
  if (problem) {
    throw new NotMeasured(problem);
  }
  const inputs = await inputsOf(shape);
  const mask = kind === 'standard' && causal ? causalMask(length) : undefined;
  const attention = kind === 'flash' ? flash(causal, variant) : standardAttention(mask);
  const set = (n: number) => inputs[n % inputs.length];
  const forward: Run = n => attention(set(n).q, set(n).k, set(n).v);
  const step: Run = n => tf.tidy(() => {
    const attend = (...x: tf.Tensor[]) => attention(...x as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D]);
    return tf.grads(attend)([set(n).q, set(n).k, set(n).v], set(n).dO);
  });
  // What is left out of a gradient's calculation: the forward pass of a call that is recorded, which may be by another
  // plan than one that is not.
  const recorded: Run = n => {
    let output: tf.Tensor|undefined;
    tf.engine().gradients(() => {
      output = tf.keep(forward(n) as tf.Tensor);
      return tf.scalar(0);
    }, [set(n).q], undefined, true).value.dispose();
    return output!; // what is waited for
  };
  const passes: Array<[Pass, Run, number, number]> =
      [['forward', forward, 1, 4], ['forward+backward', step, STEP_FLOPS, 12]];
  try {
    await withVariant(variant, async () => {
      const error = await verify(m, attention, inputs[0]);
      for (const [pass, run, share, tensors] of passes) {
        // Where it is a profile of all tensors, it costs a run.
        const peak = backend && pass === 'forward' ? undefined : await peakBytes(() => [run(0)].flat());
        const timing = await time(run);
        const isRecorded = pass === 'forward+backward' && kind === 'flash' && !backend;
        const recordedMs = isRecorded ? (await time(recorded)).medianMs : undefined;
        emit({
          kind, pass, backend, native, ...shape, causal, series, computeType: variant.computeType,
          plan: variant.plan, ...timing, recordedMs,
          gpuMs: await gpuTime(run), tflops: share * forwardFlops(m) / timing.medianMs / 1e9,
          leastBytes: tensors * bytesOf(shape), peakBytes: peak, error,
        });
      }
    });
  } finally {
    mask?.dispose();
    if (kind === 'standard') {
      await emptyPool(); // its scores would stay with tfjs, gigabytes of each size
    }
  }
}
