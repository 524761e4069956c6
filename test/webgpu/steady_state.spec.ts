import * as tf from '@tensorflow/tfjs';

import {flashAttention, flashAttentionVarlen, KvCache} from '../../src/index.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceOf, webgpuBackend} from '../support/webgpu_device.js';

const MADE = [
  'createBuffer', 'createBindGroup', 'createComputePipeline', 'createShaderModule', 'createBindGroupLayout',
] as const;

/** What the device is asked to make while `f` runs; once a spec. Preparing a call asks for its `getBindGroupLayout`. */
async function madeIn(f: () => Promise<void>): Promise<Record<string, number>> {
  const device = deviceOf();
  const spies = MADE.map(name => spyOn(device, name).and.callThrough());
  const layouts = spyOn(GPUComputePipeline.prototype, 'getBindGroupLayout').and.callThrough();
  await f();
  return {
    ...Object.fromEntries(MADE.map((name, n) => [name, spies[n].calls.count()])),
    getBindGroupLayout: layouts.calls.count(),
  };
}

const NOTHING = {...Object.fromEntries(MADE.map(name => [name, 0])), getBindGroupLayout: 0};

describe('calls on WebGPU, once they are warm', () => {
  let q: tf.Tensor4D;
  let k: tf.Tensor4D;
  let v: tf.Tensor4D;
  let dy: tf.Tensor4D;

  beforeAll(async () => {
    await tf.setBackend('webgpu');
    [q, k, v, dy] = [1, 2, 3, 4].map(seed => tf.randomNormal<tf.Rank.R4>([1, 9, 2, 8], 0, 1, 'float32', seed));
  });

  afterAll(() => tf.dispose([q, k, v, dy]));

  const toDispose: Array<{dispose(): void}> = [];
  afterEach(() => toDispose.splice(0).forEach(own => own.dispose()));

  const state = () => {
    const {bufferManager} = webgpuBackend();
    return {
      tensors: tf.memory().numTensors, data: tf.memory().numDataBuffers, bytes: bufferManager.numBytesAllocated,
      used: bufferManager.getNumUsedBuffers(), free: bufferManager.getNumFreeBuffers(),
    };
  };

  /** Runs what a loop runs, ending each turn as a loop does, by reading a result. */
  async function turns(count: number, step: (n: number) => tf.Tensor[]) {
    for (let n = 0; n < count; n++) {
      const results = tf.tidy(() => step(n));
      await results[0].data();
      tf.dispose(results);
    }
  }

  const steps: Array<[name: string, step: () => (n: number) => tf.Tensor[]]> = [
    ['forward', () => () => [flashAttention(q, k, v, {causal: true})]],
    ['forward with a table', () => () => [flashAttention(q, k, v, {sinks: [0, 1], keyLengths: [5]})]],
    ['forward with dropout, a seed a call', () => n => [flashAttention(q, k, v, {dropoutP: 0.5, seed: n})]],
    ['forward and backward', () => {
      const gradients = tf.grads((a, b, c) => flashAttention(a as tf.Tensor4D, b, c, {causal: true}));
      return () => gradients([q, k, v], dy);
    }],
    ['a token over a cache', () => {
      const cache = new KvCache({batch: 1, capacity: 2000, keyHeads: 2, headSize: 8});
      const [one, more] = [1, 2].map(seed => tf.randomNormal<tf.Rank.R4>([1, 1, 2, 8], 0, 1, 'float32', seed));
      toDispose.push(cache, one, more);
      return () => [cache.attend(one, {k: more, v: more, causal: true})];
    }],
  ];
  for (const [name, make] of steps) {
    it(`make nothing new and hold no more: ${name}`, async () => {
      const step = make();
      await turns(12, step);
      const before = state();
      expect(await madeIn(() => turns(15, step))).toEqual(NOTHING);
      expect(state()).toEqual(before);
    }, SLOW_MS);
  }

  it('make one bind group where only buffers are new', async () => {
    const others = [5, 6, 7].map(seed => tf.randomNormal<tf.Rank.R4>([1, 9, 2, 8], 0, 1, 'float32', seed));
    others.forEach(({dataId}) => webgpuBackend().uploadToGPU(dataId));
    const call = (other: tf.Tensor4D) => turns(1, () => [flashAttention(q, other, v, {causal: true})]);
    await turns(3, () => [flashAttention(q, k, v, {causal: true})]);
    expect(await madeIn(async () => {
      for (const other of others) {
        await call(other);
      }
    })).toEqual({...NOTHING, createBindGroup: 3});
    tf.dispose(others);
  }, SLOW_MS);

  it('hold on to no buffer of the caller\'s own', async () => {
    const buffer = deviceOf().createBuffer({size: 4 * 144, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC});
    const own = tf.tensor({buffer, zeroCopy: true}, [1, 9, 2, 8], 'float32') as tf.Tensor4D;
    const step = () => [flashAttention(q, own, v)];
    await turns(3, step);
    expect(await madeIn(() => turns(2, step))).toEqual({...NOTHING, createBindGroup: 2});
    own.dispose();
    buffer.destroy();
  }, SLOW_MS);

  it('give each seed its own weights though all share one plan, also before anything is submitted', async () => {
    const seeds = [1, 2 ** 40 + 3, 1, 2, 2 ** 40 + 3];
    const outputs = tf.tidy(() => seeds.map(seed => flashAttention(q, k, v, {dropoutP: 0.5, seed})));
    const values = await Promise.all(outputs.map(output => output.data()));
    expect(values[2]).toEqual(values[0]);
    expect(values[4]).toEqual(values[1]);
    expect(values[1]).not.toEqual(values[0]);
    expect(values[3]).not.toEqual(values[0]);
    expect(values[3]).not.toEqual(values[1]);
    tf.dispose(outputs);
  }, SLOW_MS);

  it('prepare sequences end to end anew, and still hold no more', async () => {
    const rows = tf.randomNormal<tf.Rank.R3>([12, 2, 8], 0, 1, 'float32', 8);
    const step = (n: number) => {
      const offsets = [0, 1 + n % 11, 12];
      return [flashAttentionVarlen(rows, rows, rows, offsets, offsets)];
    };
    await turns(3, step);
    const before = state();
    await turns(11, step);
    expect(state()).toEqual(before);
    rows.dispose();
  }, SLOW_MS);
});
