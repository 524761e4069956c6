import * as tf from '@tensorflow/tfjs';

import {flashAttention} from '../../src/index.js';
import {SLOW_MS} from '../support/specs.js';
import {deviceOf, webgpuBackend} from '../support/webgpu_device.js';

/** Long for its queries: the keys are split, so that a forward pass needs scratch memory too. */
const SHAPES: Array<[number, number, number, number]> = [[1, 2, 2, 8], [1, 900, 2, 8], [1, 900, 2, 8]];
const SUBMIT_AFTER = 'WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE';

describe('scratch memory on WebGPU', () => {
  let inputs: tf.Tensor4D[];
  let dy: tf.Tensor4D;
  let submitAfter: number;

  beforeAll(async () => {
    await tf.setBackend('webgpu');
    inputs = SHAPES.map((shape, n) => tf.randomNormal<tf.Rank.R4>(shape, 0, 1, 'float32', n));
    dy = tf.randomNormal<tf.Rank.R4>(SHAPES[0], 0, 1, 'float32', 9);
    submitAfter = tf.env().getNumber(SUBMIT_AFTER);
  });

  afterAll(() => tf.dispose([...inputs, dy]));
  afterEach(() => tf.env().set(SUBMIT_AFTER, submitAfter));

  const step = (): tf.Tensor[] => {
    const run = tf.valueAndGrads((q, k, v) => flashAttention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D));
    const {value, grads} = run(inputs, dy);
    return [value, ...grads];
  };
  const read = async (tensors: tf.Tensor[]) => {
    const values = await Promise.all(tensors.map(tensor => tensor.data()));
    tf.dispose(tensors);
    return values;
  };
  /** Buffers of scratch memory in use, and free in tfjs' pool. */
  const pooled = () => {
    const {freeBuffers, usedBuffers} = webgpuBackend().bufferManager as unknown as
        {[name in 'freeBuffers'|'usedBuffers']: Map<string, GPUBuffer[]>};
    const count = (buffers: Map<string, GPUBuffer[]>) =>
        [...buffers.values()].flat().filter(({usage}) => usage === GPUBufferUsage.STORAGE).length;
    return {used: count(usedBuffers), free: count(freeBuffers)};
  };

  it('serves every call that is recorded before a submit, and all is given back', async () => {
    const expected = await read(step());
    const before = pooled();
    expect(before.used).toBe(0);
    expect(before.free).toBeGreaterThan(0);
    tf.env().set(SUBMIT_AFTER, 1000);
    const created = spyOn(deviceOf(), 'createBuffer').and.callThrough();
    const steps = Array.from({length: 6}, step);
    const scratch = created.calls.allArgs().filter(([{usage}]) => usage === GPUBufferUsage.STORAGE);
    expect(scratch.length).toBe(0);
    for (const tensors of steps) {
      expect(await read(tensors)).toEqual(expected);
    }
    expect(pooled()).toEqual(before);
  }, SLOW_MS);

  it('is kept by a call until its end, whatever is submitted meanwhile', async () => {
    const expected = await read(step());
    for (const after of [1, 2, 3]) {
      tf.env().set(SUBMIT_AFTER, after);
      const steps = [step(), step()];
      for (const tensors of steps) {
        expect(await read(tensors)).withContext(`submitting after ${after}`).toEqual(expected);
      }
    }
    expect(pooled().used).toBe(0);
  }, SLOW_MS);

  it('is given back by a call that fails', async () => {
    const [q, k, v] = inputs;
    await read([...step(), flashAttention(q, k, v)]); // the one that fails has an LSE of its own, too
    const before = pooled();
    const fails = spyOn(deviceOf(), 'createBindGroup').and.throwError('no bind group');
    const other = tf.randomNormal<tf.Rank.R4>(SHAPES[1]);
    expect(() => flashAttention(q, other, other)).toThrowError(/no bind group/);
    fails.and.callThrough();
    other.dispose();
    await read(step());
    expect(pooled()).toEqual(before);
  }, SLOW_MS);
});
