import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {flashAttention} from '../../src/index.js';
import {makeInputs, MASKS, maskTensor, SIZE, specMaskedGradients} from '../support/masks.js';
import type {Inputs, Sees} from '../support/masks.js';
import {SLOW_MS} from '../support/specs.js';
import {withLimits} from '../support/webgpu_device.js';

/** As near as weights in f16 come. */
const TOLERANCE = 2e-3;

async function outputOf(kind: PlanKind, {q, k, v}: Inputs, options: object): Promise<Float32Array> {
  forcePlan(kind);
  const computeType = kind === 'matrix' ? 'float16' : 'float32';
  const output = tf.tidy(() => flashAttention(q, k, v, {...options, computeType}));
  const values = await output.data<'float32'>();
  output.dispose();
  return values;
}

/** By matrices as by simt. */
async function expectSame(inputs: Inputs, options: object, what: string): Promise<Float32Array> {
  const actual = await outputOf('matrix', inputs, options);
  const expected = await outputOf('simt', inputs, options);
  const wrong = actual.findIndex((x, n) => !(Math.abs(x - expected[n]) < TOLERANCE));
  expect(wrong === -1 ? '' : `element ${wrong} is ${actual[wrong]}, expected ${expected[wrong]}`)
      .withContext(what).toBe('');
  return expected;
}

describe('the forward pass over subgroup matrices with a mask', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  afterEach(() => forcePlan(undefined));

  // Rows of a multiple of four keys are read four at a time. Each kernel takes lavapipe a minute or two.
  for (const [length, causal] of [[200, false], [203, true]] as const) {
    it(`passes over tiles that it hides: ${length} keys${causal ? ', causal' : ''}`, async () => {
      const inputs = makeInputs(length, length);
      for (const [what, sees] of Object.entries(MASKS)) {
        await expectSame(inputs, {causal, mask: maskTensor(sees, length, length)}, what);
      }
      for (const what of ['all but the last keys', 'every third block of 32 keys']) {
        await expectSame(inputs, {causal, mask: maskTensor(MASKS[what], 1, length)}, `${what}, of all queries`);
      }
    }, SLOW_MS);
  }

  it('makes nothing again where the mask shows every query something of its sample', () => withLimits(
      {maxStorageBuffersPerShaderStage: 12}, async () => {
        const length = 200;
        const inputs = makeInputs(length, length);
        // A call is four dispatches with so few storage buffers, of which the last makes again what the third could
        // not: without it,
        const passes = GPUComputePassEncoder.prototype;
        const dispatch = passes.dispatchWorkgroups;
        let skips = false;
        let dispatches = 0;
        spyOn(passes, 'dispatchWorkgroups').and.callFake(function(this: GPUComputePassEncoder, ...groups) {
          if (!skips || ++dispatches % 4 > 0) {
            dispatch.apply(this, groups);
          }
        });
        const attendOnce = async (options: object) => {
          skips = true;
          const values = await outputOf('matrix', inputs, options);
          skips = false;
          return values;
        };
        // these calls are right,
        for (const what of ['all but the last keys', 'keys at random', 'blocks on the diagonal']) {
          const options = {mask: maskTensor(MASKS[what], length, length)};
          const expected = await outputOf('simt', inputs, options);
          const values = await attendOnce(options);
          expect(values.every((x, n) => Math.abs(x - expected[n]) < TOLERANCE)).withContext(what).toBeTrue();
        }
        // and one whose first 100 queries see nothing of the first keys, nor of the diagonal, is not.
        const options = {mask: maskTensor((query, key) => key >= 150 || query >= 100, length, length)};
        const values = await attendOnce(options);
        expect(Array.from(values.subarray(0, 100 * SIZE)).some(Number.isNaN)).toBeTrue();
        await expectSame(inputs, options, 'with it');
        expect(dispatches).toBe(16);
      }), SLOW_MS);

  it('keeps what it hides out of the sample: keys near any diagonal whose scores tower above all', async () => {
    const [queries, keys] = [77, 200];
    const inputs = makeInputs(queries, keys);
    const towering = [124, 130, 151, 187];
    const k = inputs.k.dataSync<'float32'>().slice();
    towering.forEach(key => k.fill(40, key * SIZE, (key + 1) * SIZE));
    const q = tf.abs(inputs.q) as Tensor4D;
    const sees: Sees = (_, key) => !towering.includes(key);
    const options = {causal: true, causalAlignment: 'bottom-right', mask: maskTensor(sees, queries, keys)};
    await expectSame({...inputs, q, k: tf.tensor4d(k, inputs.k.shape)}, options, 'scores of some hundreds');
  }, SLOW_MS);

  it('lets NaN and infinities reach what sees them, and nothing else', async () => {
    const length = 200;
    const inputs = makeInputs(length, length);
    const k = inputs.k.dataSync<'float32'>().slice();
    const v = inputs.v.dataSync<'float32'>().slice();
    k[150 * SIZE + 3] = NaN;
    v[40 * SIZE + 5] = Infinity;
    v[199 * SIZE + 7] = NaN;
    const hidden = [40, 150, 199];
    const broken = {...inputs, k: tf.tensor4d(k, inputs.k.shape), v: tf.tensor4d(v, inputs.v.shape)};
    await expectSame(broken, {mask: maskTensor((_, key) => !hidden.includes(key), length, length)}, 'all hidden');
    // Key 40 is seen from query 64 on.
    const mask = maskTensor((query, key) => key !== 150 && key !== 199 && (key !== 40 || query >= 64), length, length);
    const values = await outputOf('matrix', broken, {mask});
    expect(values.subarray(0, 64 * SIZE).every(Number.isFinite)).toBeTrue();
    expect([values[64 * SIZE + 5], values[199 * SIZE + 5]]).toEqual([Infinity, Infinity]);
    expect([values[64 * SIZE + 4], values[199 * SIZE + 6]].every(Number.isFinite)).toBeTrue();
  }, SLOW_MS);

  it('takes biases that hide, that are large, and that outweigh the sample', async () => {
    const length = 200;
    const inputs = makeInputs(length, length);
    const bias = (value: (query: number, key: number) => number) => tf.tensor(
        Float32Array.from({length: length ** 2}, (_, n) => value(Math.floor(n / length), n % length)),
        [1, 1, length, length]);
    const cases = {
      '-∞ for two thirds': (query: number, key: number) => (query + key) % 3 === 0 ? 0 : -Infinity,
      '-1e9 for the first keys': (_: number, key: number) => key < 70 ? -1e9 : 0,
      '30 for one key': (_: number, key: number) => key === 137 ? 30 : 0,
      '-∞ for all': () => -Infinity,
    };
    for (const [what, value] of Object.entries(cases)) {
      await expectSame(inputs, {bias: bias(value)}, what);
    }
  }, SLOW_MS);
});

describe('gradients over subgroup matrices with a mask', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  afterEach(() => forcePlan(undefined));

  specMaskedGradients('matrix', 5e-3, [203]);
  specMaskedGradients('matrix_split', 5e-6, [200]);
});
