import * as tf from '@tensorflow/tfjs';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

import {
  flashAttention, flashAttentionKvPacked, flashAttentionQkvPacked, flashAttentionVarlen, flashAttentionWithKvCache,
  prepare,
} from '../../src/index.js';
import type {CallShapeOptions, CallShapes, PrepareOptions} from '../../src/index.js';
import {Compiles} from '../support/compiles.js';
import {SLOW_MS} from '../support/specs.js';

const random = (shape: readonly number[]) => tf.randomNormal(shape as [number, number, number, number]);
const gradients = {gradients: true};

/** A call, and what `prepare` is told about it. */
interface Prepared {
  readonly what: string;
  readonly shapes: CallShapes;
  readonly options?: CallShapeOptions;
  readonly prepare?: PrepareOptions;
  /** The call; gives what is to be read. */
  readonly call: () => tf.Tensor|tf.Tensor[];
}

const [B, N, H, D] = [2, 33, 2, 8];
const x = [B, N, H, D];

const PREPARED: Prepared[] = [
  {what: 'a forward pass', shapes: {q: x, k: x, v: x}, call: () => flashAttention(random(x), random(x), random(x))},
  {
    what: 'forward and backward, every option', prepare: gradients,
    shapes: {q: [B, N, H, D], k: [B, 40, 1, D], v: [B, 40, 1, 12]},
    options: {
      causal: true, windowSize: [20, -1], softcap: 3, dropoutP: 0.1, mask: [N, 40], bias: [1, H, N, 40],
      alibiSlopes: [H], sinks: [H], queryLengths: [B], keyLengths: [B],
    },
    call: () => {
      const mask = tf.ones<tf.Rank.R2>([N, 40], 'bool');
      const queryLengths = [N, 20];
      return tf.grads((...[q, k, v, bias, sinks]) => flashAttention(q as tf.Tensor4D, k, v, {
        causal: true, windowSize: [20, -1], softcap: 3, dropoutP: 0.1, mask, bias, sinks, queryLengths,
        alibiSlopes: [0.1, 0.2], keyLengths: [40, 7],
      }))([random([B, N, H, D]), random([B, 40, 1, D]), random([B, 40, 1, 12]), random([1, H, N, 40]), tf.ones([H])]);
    },
  },
  {
    what: 'some gradients, heads first', shapes: {q: [1, 2, N, 16], k: [1, 2, N, 16], v: [1, 2, N, 16]},
    options: {layout: 'bhnd'}, prepare: {gradients: ['k']},
    call: () => {
      const [q, v] = [random([1, 2, N, 16]), random([1, 2, N, 16])];
      return tf.grad(k => flashAttention(q as tf.Tensor4D, k, v, {layout: 'bhnd'}))(random([1, 2, N, 16]));
    },
  },
  {
    what: 'a bias that is summed over', shapes: {q: x, k: x, v: x}, options: {bias: [N]},
    prepare: {gradients: ['bias']},
    call: () => {
      const q = random(x) as tf.Tensor4D;
      return tf.grad(bias => flashAttention(q, q, q, {bias}))(tf.zeros([N]));
    },
  },
  {
    what: 'few queries over many keys, which are split',
    shapes: {q: [1, 1, H, D], k: [1, 1000, H, D], v: [1, 1000, H, D]},
    call: () => flashAttention(random([1, 1, H, D]), random([1, 1000, H, D]), random([1, 1000, H, D])),
  },
  {
    what: 'q, k and v packed', shapes: {qkv: [B, N, 3, H, D]}, options: {causal: true}, prepare: gradients,
    call: () => tf.grad(qkv => flashAttentionQkvPacked(qkv, {causal: true}))(random([B, N, 3, H, D])),
  },
  {
    what: 'k and v packed', shapes: {q: x, kv: [B, 9, 2, 1, D]}, prepare: gradients,
    call: () => tf.grads((q, kv) => flashAttentionKvPacked(q, kv))([random(x), random([B, 9, 2, 1, D])]),
  },
  {
    what: 'sequences end to end', shapes: {q: [20, H, D], k: [30, H, D], v: [30, H, D]}, prepare: gradients,
    options: {cuSeqlensQ: [0, 5, 20], cuSeqlensK: [0, 25, 30], causal: true},
    call: () => tf.grads((q, k, v) => flashAttentionVarlen(q, k, v, [0, 5, 20], [0, 25, 30], {causal: true}))(
        [random([20, H, D]), random([30, H, D]), random([30, H, D])]),
  },
  {
    what: 'a token appended to a cache',
    shapes: {q: [B, 1, 4, D], kCache: [B, 300, H, D], vCache: [B, 300, H, D], k: [B, 1, H, D], v: [B, 1, H, D]},
    options: {causal: true},
    call: () => flashAttentionWithKvCache(random([B, 1, 4, D]), random([B, 300, H, D]), random([B, 300, H, D]), {
      k: random([B, 1, H, D]), v: random([B, 1, H, D]), cacheLengths: 7, causal: true,
    }),
  },
  {
    what: 'a cache in pages', shapes: {q: [B, 3, H, D], kCache: [6, 16, H, D], vCache: [6, 16, H, D]},
    options: {blockTable: [B, 3], numSplits: 2, sinks: [H]},
    call: () => flashAttentionWithKvCache(random([B, 3, H, D]), random([6, 16, H, D]), random([6, 16, H, D]), {
      blockTable: tf.tensor2d([0, 1, 2, 3, 4, 5], [B, 3], 'int32'), cacheLengths: [40, 20], numSplits: 2, sinks: [0, 1],
    }),
  },
];

/** Runs `f` on a backend whose device has compiled nothing yet. */
async function onFreshDevice(f: (device: GPUDevice) => Promise<void>, change?: (device: GPUDevice) => void) {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = await adapter.requestDevice();
  change?.(device);
  tf.registerBackend('fresh-webgpu', () => new WebGPUBackend(device, adapter.info));
  if (!tf.getKernel('FlashAttention', 'fresh-webgpu')) {
    tf.copyRegisteredKernels('webgpu', 'fresh-webgpu');
  }
  await tf.setBackend('fresh-webgpu');
  try {
    await f(device);
  } finally {
    await tf.setBackend('webgpu');
    tf.removeBackend('fresh-webgpu');
    device.destroy();
  }
}

/** Runs a call to its end. */
async function runs(call: () => tf.Tensor|tf.Tensor[]): Promise<tf.TypedArray[]> {
  const results = [tf.tidy(call)].flat();
  const values = await Promise.all(results.map(result => result.data()));
  tf.dispose(results);
  return values;
}

const messageOf = (promise: Promise<unknown>): Promise<string> =>
    promise.then(() => 'no error', (error: Error) => error.message);

describe('prepare', () => {
  for (const {what, shapes, options, prepare: wanted, call} of PREPARED) {
    it(`compiles all that it takes for ${what}, in the background, once`, async () => {
      await onFreshDevice(async device => {
        const compiles = new Compiles(device);
        const before = tf.memory();
        await Promise.all([prepare(shapes, options, wanted), prepare(shapes, options, wanted)]);
        const {modules, now, inBackground} = compiles;
        expect(inBackground).toBeGreaterThan(0);
        expect({modules, now}).toEqual({modules: inBackground, now: 0});
        expect(tf.memory()).toEqual(before);
        for (const values of await runs(call)) {
          expect(values.every(Number.isFinite)).toBe(true);
        }
        await prepare(shapes, options, wanted);
        expect({modules: compiles.modules, now: compiles.now}).toEqual({modules: inBackground, now: 0});
        compiles.stop();
      });
    }, SLOW_MS);
  }

  it('leaves the backward pass to be compiled where gradients were not mentioned', async () => {
    await onFreshDevice(async device => {
      const compiles = new Compiles(device);
      await prepare({q: x, k: x, v: x});
      await runs(() => flashAttention(random(x), random(x), random(x)));
      expect(compiles.now).toBe(0);
      await runs(() => tf.grad(q => flashAttention(q as tf.Tensor4D, q, q))(random(x)));
      expect(compiles.now).toBeGreaterThan(0);
      compiles.stop();
    });
  }, SLOW_MS);

  it('does not hold up a call that comes while it compiles', async () => {
    await onFreshDevice(async device => {
      const compiles = new Compiles(device);
      const preparing = prepare({q: x, k: x, v: x});
      await Promise.resolve();
      const [values] = await runs(() => flashAttention(tf.ones(x as [number, number, number, number]), tf.ones(x),
          tf.ones(x)));
      expect(Math.max(...values.map(value => Math.abs(value - 1)))).toBeLessThan(1e-6);
      await preparing;
      await runs(() => flashAttention(random(x), random(x), random(x)));
      expect(compiles.now).toBeLessThanOrEqual(1);
      compiles.stop();
    });
  }, SLOW_MS);

  it('rejects with line, column and the whole shader where a kernel does not compile', async () => {
    const say = spyOn(console, 'error');
    const breakShaders = (device: GPUDevice) => {
      const createShaderModule = device.createShaderModule.bind(device);
      device.createShaderModule = descriptor =>
          createShaderModule({...descriptor, code: descriptor.code.replace('fn main(', 'fn main(oops')});
    };
    await onFreshDevice(async device => {
      const errors: string[] = [];
      device.addEventListener('uncapturederror', event => {
        errors.push((event as GPUUncapturedErrorEvent).error.message);
      });
      const message = await messageOf(prepare({q: x, k: x, v: x}));
      expect(message).toMatch(/^flashAttention: the forward kernel does not compile on this WebGPU device: /);
      const [, line, column] = message.match(/\n(\d+):(\d+) /)!;
      const shader = message.split('\n').filter(text => /^ {0,3}\d+ /.test(text));
      expect(shader.length).toBeGreaterThan(100);
      expect(shader[Number(line) - 1]).toMatch(new RegExp(`^ *${line} `));
      expect(Number(column)).toBeGreaterThan(0);
      expect(message).toMatch(/\n +\d+ fn main\(/);
      expect(errors).toEqual([]);
      expect(say).not.toHaveBeenCalled();
    }, breakShaders);
  }, SLOW_MS);

  it('rejects before anything is compiled where the call would be refused', async () => {
    await onFreshDevice(async device => {
      const compiles = new Compiles(device);
      const huge = [1, 2 ** 22, 1, 1];
      expect(await messageOf(prepare({q: huge, k: huge, v: [1, 2 ** 22, 1, 256]}))).toMatch(
          /^flashAttention: the output takes 4294967296 bytes, over the WebGPU limit maxBufferSize \(\d+\)/);
      expect(await messageOf(prepare({q: x, k: x, v: [B, N + 1, H, D]}))).toMatch(/expected the length of k, 33/);
      expect(compiles.modules).toBe(0);
      compiles.stop();
    });
  }, SLOW_MS);

  it('rejects where the device is lost while it compiles', async () => {
    await onFreshDevice(async device => {
      const preparing = messageOf(prepare({q: x, k: x, v: x}, {}, gradients));
      device.destroy();
      expect(await preparing).toMatch(/flashAttention: the WebGPU device was lost/);
    });
  }, SLOW_MS);
});
