import * as tf from '@tensorflow/tfjs';
import type {Tensor4D} from '@tensorflow/tfjs';

import {forcePlan} from '../../src/backends/webgpu/choose.js';
import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {flashAttention} from '../../src/index.js';
import {SLOW_MS} from '../support/specs.js';
import {withLimits} from '../support/webgpu_device.js';

const LENGTH = 600; // two segments of keys after which a maximum may rise, and part of a third
const SIZE = 16;
const SHAPE: [number, number, number, number] = [1, LENGTH, 1, SIZE];

interface Rows {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Small numbers that f16 holds exactly; the score of every query with key j is what `score` says, and a little. */
function makeRows(score: (key: number) => number): Rows {
  const noise = (salt: number) => Float32Array.from(
      {length: LENGTH * SIZE}, (_, n) => Math.imul(n * 31 + salt, 2654435761) >> 29 & 7).map(x => (x - 3.5) / 8);
  const rows = {q: noise(1), k: noise(2), v: noise(3)};
  for (let row = 0; row < LENGTH; row++) {
    rows.q[row * SIZE] = 4; // softmaxScale is 1/4
    rows.k[row * SIZE] = score(row);
  }
  return rows;
}

async function outputs(kind: PlanKind, {q, k, v}: Rows, causal: boolean): Promise<Float32Array> {
  forcePlan(kind);
  const output = tf.tidy(() => flashAttention(
      ...[q, k, v].map(x => tf.tensor4d(x, SHAPE)) as [Tensor4D, Tensor4D, Tensor4D],
      {causal, computeType: kind === 'matrix' ? 'float16' : 'float32'}));
  const values = await output.data<'float32'>();
  output.dispose();
  return values;
}

/** The same NaN and infinities, and all else as near as weights in f16 come. */
async function expectSame(rows: Rows, causal = true): Promise<Float32Array> {
  const actual = await outputs('matrix', rows, causal);
  const expected = await outputs('simt', rows, causal);
  const wrong = actual.findIndex((x, n) => Number.isFinite(expected[n]) ?
    !(Math.abs(x - expected[n]) < 2e-3) :
    !Object.is(x, expected[n]));
  expect(wrong === -1 ? '' : `element ${wrong} is ${actual[wrong]}, expected ${expected[wrong]}`).toBe('');
  return expected;
}

describe('the forward pass over subgroup matrices', () => {
  beforeAll(async () => {
    await tf.setBackend('webgpu');
  });

  afterEach(() => forcePlan(undefined));

  it('counts as one dispatch toward the next submit: copies and second attempts are small', async () => {
    const backend = tf.backend() as unknown as {dispatchCountInPass: number};
    forcePlan('matrix');
    const [q, k, v] = [1, 2, 3].map(seed => tf.randomNormal(SHAPE, 0, 1, 'float32', seed) as Tensor4D);
    const attend = () => flashAttention(q, k, v, {computeType: 'float16'});
    await attend().data(); // uploads, compiles, and submits
    const before = backend.dispatchCountInPass;
    const outputs = [attend(), attend()];
    expect(backend.dispatchCountInPass - before).toBe(2);
    await outputs[1].data();
    tf.dispose([q, k, v, ...outputs]);
  }, SLOW_MS);

  /** With fewer than 13 storage buffers, and where there are many rows, a kernel of its own makes tiles again. */
  const bothWays = async (f: () => Promise<void>) => {
    await f();
    await withLimits({maxStorageBuffersPerShaderStage: 12}, f);
  };

  it('makes tiles again whose weights outgrow f16: a key that outweighs its sample by e^30', () => bothWays(
      async () => {
        await expectSame(makeRows(key => key === 137 ? 30 : 0));
      }), SLOW_MS);

  it('lets a maximum rise with scores that grow from segment to segment', async () => {
    // By e^6 in a segment: its weights fit. Not causal: the diagonal of a causal mask would be the largest.
    await expectSame(makeRows(key => Math.floor(key / 4) * 3 / 32), false);
  }, SLOW_MS);

  it('lets NaN and infinities reach what sees them, and nothing else', () => bothWays(async () => {
    const rows = makeRows(() => 0);
    rows.q[40 * SIZE + 3] = NaN;
    rows.k[300 * SIZE + 5] = NaN;
    rows.v[100 * SIZE + 7] = Infinity;
    rows.v[250 * SIZE + 9] = NaN;
    rows.v[599 * SIZE + 1] = -Infinity;
    const expected = await expectSame(rows);
    const at = (query: number, d: number) => expected[query * SIZE + d];
    expect([at(40, 0), at(100, 7), at(260, 9), at(300, 0)]).toEqual([NaN, Infinity, NaN, NaN]);
    expect([at(39, 0), at(99, 7), at(249, 9), at(598, 1)].map(Number.isFinite)).toEqual([true, true, true, false]);
  }), SLOW_MS);
});
