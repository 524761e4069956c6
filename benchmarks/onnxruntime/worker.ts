/**
 * Measures the attention of onnxruntime-node's WebGPU execution provider for supervise.ts, in a process of its own: it
 * brings its own Dawn. Tensors live on the host between runs, so every run copies q, k and v to the GPU. Models with
 * one attention and with several in a row differ by attention alone: that difference is what is timed.
 */
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {parseArgs} from 'node:util';

import {forwardFlops} from '../core/flops.js';
import type {AttentionMeasurement, Measurement} from '../core/measurements.js';
import {NotMeasured} from '../core/not_measured.js';
import type {AttentionRow, Row} from '../core/results.js';
import {outputError} from '../core/verify_rows.js';
import type {ReadRows} from '../core/verify_rows.js';
import {serveMeasurements} from '../messages.js';

import {attentionModel} from './attention_model.js';
import type {AttentionModel, ModelType} from './attention_model.js';
import {fromFloat16, toFloat16} from './float16.js';

/** What is used of onnxruntime-node. */
interface OnnxTensor {
  readonly data: ArrayLike<number>;
}
interface Session {
  run(feeds: Record<string, OnnxTensor>): Promise<Record<string, OnnxTensor>>;
  release(): Promise<void>;
}
interface Onnxruntime {
  Tensor: new (type: string, data: ArrayLike<number>, shape: readonly number[]) => OnnxTensor;
  InferenceSession: {create(model: Uint8Array, options: object): Promise<Session>};
  env: {versions: {node?: string}};
}

const {values: args} = parseArgs({options: {folder: {type: 'string', default: ''}}});

/** Rounding to float16 at every step of a running sum leaves more than the kernels of this package may. */
const TOLERANCE: Record<ModelType, number> = {float32: 1e-4, float16: 0.1};
const FIRST_CHAIN = 2;
const LONGEST_CHAIN = 64;
/** At least so much attention in a chain. */
const CHAIN_MS = 80;
const WARM_UP_MS = 250;
const SAMPLES = 5;
/** No new sample after this long, once there are two. */
const MOST_MS = 2500;

let numbers: Float32Array[] = [];

/** q, k and v: numbers in [−1.7, 1.7] with no pattern. Smaller shapes take a part of those of larger ones. */
function hostInputs(count: number): Float32Array[] {
  if ((numbers[0]?.length ?? 0) < count) {
    let state = 12345;
    numbers = [0, 1, 2].map(() => {
      const values = new Float32Array(count);
      for (let n = 0; n < count; n++) {
        state = Math.imul(state, 1664525) + 1013904223 >>> 0;
        values[n] = 3.4 * (state / 2 ** 32 - 0.5);
      }
      return values;
    });
  }
  return numbers.map(values => values.subarray(0, count));
}

/** Where JavaScript has float16 arrays, onnxruntime takes those, else their bits. */
function tensorData(values: Float32Array, type: ModelType): ArrayLike<number> {
  if (type === 'float32') {
    return values;
  }
  const bits = toFloat16(values);
  const {Float16Array} = globalThis as {Float16Array?: new (buffer: ArrayBuffer) => ArrayLike<number>};
  return Float16Array ? new Float16Array(bits.buffer) : bits;
}

class Peer {
  constructor(private readonly ort: Onnxruntime) {}

  private session(model: AttentionModel): Promise<Session> {
    return this.ort.InferenceSession.create(attentionModel(model), {
      executionProviders: ['webgpu'],
      logSeverityLevel: 4, // errors are thrown, and told once
      extra: {session: {disable_cpu_ep_fallback: '1'}},
    });
  }

  async measure(m: AttentionMeasurement, emit: (row: AttentionRow) => void): Promise<void> {
    const {batch, heads, length, headSize, causal, series, variant} = m;
    const type = variant.computeType as ModelType;
    const shape = {batch, heads, length, headSize};
    const model: AttentionModel = {...shape, causal, type, nodes: 1};
    const hosts = hostInputs(batch * length * heads * headSize);
    const [q, k, v] = hosts.map(
        values => new this.ort.Tensor(type, tensorData(values, type), [batch, length, heads * headSize]));
    const feeds = {q, k, v};
    const error = await this.verify(model, feeds, m.tolerance ?? TOLERANCE[type]);
    const timing = await this.time(model, feeds);
    emit({
      kind: 'onnxruntime', pass: 'forward', ...shape, causal, series, computeType: type, ...timing,
      tflops: forwardFlops(m) / timing.medianMs / 1e9,
      leastBytes: 4 * (type === 'float16' ? 2 : 4) * batch * heads * length * headSize, error,
    });
  }

  private async verify(
      model: AttentionModel, feeds: Record<'q'|'k'|'v', OnnxTensor>, tolerance: number): Promise<number> {
    const {batch, heads, length, headSize, causal, type} = model;
    const session = await this.session(model);
    const {output} = await session.run(feeds).catch((error: Error) => {
      throw /requires f16/.test(error.message) ? new NotMeasured('the device has no shader-f16') : error;
    });
    await session.release();
    /** Rows of the last head of the last batch. */
    const head = ({data}: OnnxTensor): ReadRows => (first, count) => {
      const isBits = type === 'float16' && data instanceof Uint16Array;
      return Promise.resolve(Float64Array.from({length: count * headSize}, (_, n) => {
        const row = (batch - 1) * length + first + Math.floor(n / headSize);
        const value = data[(row * heads + heads - 1) * headSize + n % headSize];
        return isBits ? fromFloat16(value) : value;
      }));
    };
    const error = await outputError({
      q: head(feeds.q), k: head(feeds.k), v: head(feeds.v), output: head(output), queries: length, keys: length,
      causal,
    });
    if (!(error <= tolerance)) {
      throw new Error(`wrong results: relative error ${error}`);
    }
    return error;
  }

  /** Time of one attention, by the difference between models with one and with `1 + chain` of them. */
  private async time(model: AttentionModel, feeds: Record<string, OnnxTensor>) {
    const run = async (session: Session): Promise<number> => {
      const start = performance.now();
      await session.run(feeds);
      return performance.now() - start;
    };
    const one = await this.session({...model, lastRowOnly: true});
    const several = (chain: number) => this.session({...model, nodes: 1 + chain, lastRowOnly: true});
    let chain = FIRST_CHAIN;
    let many = await several(chain);
    await run(one);
    await run(many); // both have compiled now
    const warmUp = performance.now();
    const each = (await run(many) - await run(one)) / chain;
    if (each * chain < CHAIN_MS) {
      await many.release();
      chain = Math.min(LONGEST_CHAIN, Math.max(FIRST_CHAIN, Math.ceil(CHAIN_MS / Math.max(each, 1e-3))));
      many = await several(chain);
      await run(many);
    }
    while (performance.now() - warmUp < WARM_UP_MS) {
      await run(many);
    }
    const samples: number[] = [];
    const start = performance.now();
    while (samples.length < 2 || samples.length < SAMPLES && performance.now() - start < MOST_MS) {
      const long = await run(many);
      samples.push((long - await run(one)) / chain);
    }
    await many.release();
    await one.release();
    samples.sort((a, b) => a - b);
    const medianMs = samples[samples.length >> 1];
    if (medianMs <= 0) {
      throw new NotMeasured('too fast: copies take longer than a chain of attentions');
    }
    return {
      medianMs, spread: (samples[samples.length - 1] - samples[0]) / medianMs, batches: samples.length,
      runsPerBatch: chain,
    };
  }
}

try {
  if (args.folder === '') {
    throw new Error('onnxruntime-node is not here: npm run bundle -- --peers fetches it');
  }
  const require = createRequire(join(args.folder, 'package.json'));
  const ort = require('onnxruntime-node') as Onnxruntime;
  const peer = new Peer(ort);
  serveMeasurements({onnxruntime: ort.env.versions.node}, (m: Measurement, emit: (row: Row) => void) => {
    if (m.suite !== 'attention' || m.kind !== 'onnxruntime') {
      throw new Error('only attention is measured here');
    }
    return peer.measure(m, emit);
  }, error => error instanceof NotMeasured);
} catch (error) {
  process.send?.({type: 'failed', why: (error as Error).message});
}
