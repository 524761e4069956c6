import * as tf from '@tensorflow/tfjs';

import type {PlanKind} from '../../src/backends/webgpu/choose.js';
import {flashAttention, prepare} from '../../src/index.js';
import {Compiles} from '../support/compiles.js';
import {onFreshDevice, runs} from '../support/fresh_device.js';
import {
  APPENDED, EVERY_OPTION, FEW_QUERIES, FEW_QUERIES_WITH_GRADIENTS, gradients, PAGED, PREPARED_CALLS, random, x,
} from '../support/prepared_calls.js';
import {specPrepared} from '../support/prepared_specs.js';
import {SLOW_MS} from '../support/specs.js';

const messageOf = (promise: Promise<unknown>): Promise<string> =>
    promise.then(() => 'no error', (error: Error) => error.message);

describe('prepare', () => {
  specPrepared(PREPARED_CALLS);

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
    }, {change: breakShaders});
  }, SLOW_MS);

  it('rejects before anything is compiled where the call would be refused', async () => {
    await onFreshDevice(async device => {
      const compiles = new Compiles(device);
      const huge = [1, 2 ** 22, 1, 1];
      expect(await messageOf(prepare({q: huge, k: huge, v: [1, 2 ** 22, 1, 256]}))).toMatch(
          /^flashAttention: the output takes 4294967296 bytes, over the WebGPU limit maxBufferSize \(\d+\)/);
      expect(await messageOf(prepare({q: x, k: x, v: [2, 34, 2, 8]}))).toMatch(/expected the length of k, 33/);
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

// Kernels that have plans of the kind run by one, whatever would be chosen.
const KINDS: ReadonlyArray<readonly [kind: PlanKind, calls: readonly string[]]> = [
  ['simt', [EVERY_OPTION, FEW_QUERIES, FEW_QUERIES_WITH_GRADIENTS]],
  ['subgroup', [EVERY_OPTION, FEW_QUERIES, FEW_QUERIES_WITH_GRADIENTS, APPENDED]],
  ['decode', [FEW_QUERIES, FEW_QUERIES_WITH_GRADIENTS, APPENDED, PAGED]],
];

for (const [kind, calls] of KINDS) {
  describe(`prepare for plans of the kind ${kind}`, () => {
    specPrepared(PREPARED_CALLS.filter(({what}) => calls.includes(what)), {kind, full: true});
  });
}
