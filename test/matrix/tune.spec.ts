import * as tf from '@tensorflow/tfjs';

import {flashAttention, tune} from '../../src/index.js';
import {explainChoice} from '../../src/backends/webgpu/choose.js';
import {capabilitiesOf} from '../../src/backends/webgpu/device.js';
import {setWinnerStorage} from '../../src/backends/webgpu/winners.js';
import {plannedCall} from '../../src/op/planned_call.js';
import {onFreshDevice, runs} from '../support/fresh_device.js';
import {SLOW_MS} from '../support/specs.js';

const shape = [1, 48, 2, 16];
const shapes = {q: shape, k: shape, v: shape};
const what = {gradients: ['q'], milliseconds: 5} as const;

describe('tune on a device with subgroup matrices', () => {
  beforeAll(() => setWinnerStorage(() => ({place: 'nowhere', read: () => null, write: () => undefined})));

  it('times them where computeType allows float16, and has the backward pass follow what wins', async () => {
    await onFreshDevice(async device => {
      const half = {computeType: 'float16', causal: true} as const;
      const before = tf.backend().numDataIds();
      const {timed, winner} = await tune(shapes, half, what);
      expect(tf.backend().numDataIds()).toBe(before);
      expect(timed.filter(({milliseconds}) => milliseconds! > 0).map(({kind}) => kind))
          .toEqual(['simt', 'subgroup', 'matrix']);
      expect(timed.filter(({problem}) => problem)).toEqual([]);
      const {problem} = plannedCall(shapes, half, what.gradients);
      const kinds = (['forward', 'backward_dq', 'backward_dkv'] as const).map(
          kernel => explainChoice(kernel, problem, capabilitiesOf(device), true).kind as string);
      const backward = winner === 'matrix' ? 'matrix' : 'simt';
      expect(kinds).toEqual([winner, backward, backward]);
      const x = tf.ones<tf.Rank.R4>(shape as [number, number, number, number]);
      const query = tf.mul(x, 2);
      const [dQ] = await runs(() => tf.grad(q => flashAttention(q as tf.Tensor4D, x, x, half))(query));
      expect(Math.max(...dQ.map(Math.abs))).withContext('of keys that are all the same').toBeLessThan(1e-2);
      tf.dispose([x, query]);
    }, {full: true});
  }, SLOW_MS);

  it('times those of split operands for float32', async () => {
    await onFreshDevice(async () => {
      const kinds = async (gradients: false|['q']) =>
          (await tune(shapes, {}, {...what, gradients})).timed.filter(({problem}) => !problem).map(({kind}) => kind);
      expect(await kinds(false)).toEqual(['simt', 'subgroup', 'matrix_split']);
      expect(await kinds(['q'])).toEqual(['simt', 'subgroup', 'matrix_split']);
    }, {full: true});
  }, SLOW_MS);
});
