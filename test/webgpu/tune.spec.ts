import * as tf from '@tensorflow/tfjs';

import {flashAttention, tune} from '../../src/index.js';
import type {Backend} from '../../src/backends/webgpu/backend.js';
import {explainChoice} from '../../src/backends/webgpu/choose.js';
import {capabilitiesOf} from '../../src/backends/webgpu/device.js';
import {formatWinners, setWinnerStorage} from '../../src/backends/webgpu/winners.js';
import type {Winners} from '../../src/backends/webgpu/winners.js';
import {plannedCall} from '../../src/op/planned_call.js';
import {onFreshDevice, runs} from '../support/fresh_device.js';
import {SLOW_MS} from '../support/specs.js';

/** Has the shaders of a kind of plan changed before they are compiled. */
const changing = (kind: string, from: string, to: string) => (device: GPUDevice) => {
  const createShaderModule = device.createShaderModule.bind(device);
  device.createShaderModule = descriptor => createShaderModule({
    ...descriptor,
    code: descriptor.code.includes(`// forward, ${kind}`) ? descriptor.code.replaceAll(from, to) : descriptor.code,
  });
};

const full = {full: true};
const shape = [1, 48, 2, 16];
const shapes = {q: shape, k: shape, v: shape};
const options = {causal: true};
const fast = {milliseconds: 5};
const {problem} = plannedCall(shapes, options, false);
const other = plannedCall(shapes, {}, false).problem;
const ones = () => tf.ones<tf.Rank.R4>(shape as [number, number, number, number]);
const hasSubgroups = (device: GPUDevice) => device.features.has('subgroups' as GPUFeatureName);

/** What is held on the current backend. */
function held() {
  const backend = tf.backend() as unknown as Backend;
  const {bufferManager} = backend as unknown as {bufferManager: {getNumUsedBuffers(): number}};
  return {
    tensors: tf.memory().numTensors, data: tf.backend().numDataIds(), buffers: bufferManager.getNumUsedBuffers(),
  };
}

describe('tune', () => {
  let stored: string|null;
  let write: jasmine.Spy;

  beforeEach(() => {
    stored = null;
    write = jasmine.createSpy('write', (text: string) => {
      stored = text;
    }).and.callThrough();
    setWinnerStorage(() => ({place: 'the memory of a test', read: () => stored, write}));
  });

  afterAll(() => setWinnerStorage(() => ({place: 'nowhere', read: () => null, write: () => undefined})));

  it('times the kinds of plans that can run a call, and has the fastest run calls of its class', async () => {
    await onFreshDevice(async device => {
      const x = ones();
      await runs(() => flashAttention(x, x, x, options)); // prepared by the rule, which does not hold any more then
      const before = held();
      const report = await tune(shapes, options, fast);
      expect(held()).toEqual(before);
      expect(report.timed.map(({kind}) => kind)).toEqual(hasSubgroups(device) ? ['simt', 'subgroup'] : []);
      expect(report.timed.filter(({milliseconds, problem: wrong}) => !(milliseconds! > 0) || wrong)).toEqual([]);
      const [fastest = {kind: 'simt'}] = [...report.timed].sort((a, b) => a.milliseconds! - b.milliseconds!);
      expect(report.winner).toBe(fastest.kind);
      expect(report.problems).toMatch(/^float32 D16 Dv16 .* causal$/);
      if (hasSubgroups(device)) {
        expect(report.rememberedIn).toBe('the memory of a test');
        expect(explainChoice('forward', problem, capabilitiesOf(device)).why).toBe('the fastest that tune found');
      }
      expect(explainChoice('forward', other, capabilitiesOf(device)).why).not.toMatch(/tune/);
      tf.dispose(x);
    }, full);
  }, SLOW_MS);

  for (const turned of ['simt', 'subgroup'] as const) {
    it(`has calls run by the winner, and FLASH_ATTENTION_DEBUG=plan says so: ${turned}`, async () => {
      let adapter = '';
      let problems = '';
      await onFreshDevice(async () => {
        ({adapter, problems} = await tune(shapes, options, fast));
      }, full);
      stored = formatWinners({[adapter]: {[problems]: turned}});
      const log = spyOn(console, 'log');
      tf.env().set('FLASH_ATTENTION_DEBUG', 'plan');
      try {
        await onFreshDevice(async device => {
          const [values] = await runs(() => flashAttention(ones(), ones(), ones(), options));
          expect(values.every(value => Math.abs(value - 1) < 1e-6)).toBe(true);
          const lines = log.calls.allArgs().map(([line]) => line as string);
          const expected = hasSubgroups(device) ? 'tune found' : '';
          expect(lines.filter(line => line.includes(` forward ${turned} `) && line.includes(expected)).length)
              .toBe(hasSubgroups(device) || turned === 'simt' ? 1 : 0);
        }, full);
      } finally {
        tf.env().set('FLASH_ATTENTION_DEBUG', '');
      }
    }, SLOW_MS);
  }

  it('times the backward pass too, by what it would follow from the forward pass', async () => {
    await onFreshDevice(async () => {
      const few = [1, 2, 2, 16];
      const before = held();
      const {timed} = await tune({q: few, k: shape, v: shape}, {bias: [2, 48]}, {...fast, gradients: true});
      expect(held()).toEqual(before);
      // Not decode, by which no call with gradients runs.
      expect(timed.filter(({milliseconds}) => milliseconds! > 0).map(({kind}) => kind)).toEqual(['simt', 'subgroup']);
      expect(timed.filter(({problem: wrong}) => wrong)).toEqual([]);
    }, full);
  }, SLOW_MS);

  it('takes every form of a call', async () => {
    await onFreshDevice(async () => {
      const cache = {kCache: [2, 200, 2, 16], vCache: [2, 200, 2, 16]};
      const pages = {kCache: [6, 16, 2, 16], vCache: [6, 16, 2, 16]};
      const before = held();
      for (const report of [
        await tune({q: [2, 1, 4, 16], ...cache}, {}, fast),
        await tune({q: [2, 1, 4, 16], ...cache, k: [2, 1, 2, 16], v: [2, 1, 2, 16]}, {causal: true}, fast),
        await tune({q: [2, 2, 4, 16], ...pages}, {blockTable: [2, 3]}, fast),
        await tune({q: [3, 2, 16], k: [60, 2, 16], v: [60, 2, 16]}, {cuSeqlensQ: [0, 1, 3], cuSeqlensK: [0, 50, 60]},
            fast),
        await tune({q: [1, 3, 2, 16], kv: [1, 40, 2, 2, 16]}, {
          mask: [3, 40], alibiSlopes: [2], sinks: [2], keyLengths: [1], dropoutP: 0.2, softcap: 5,
        }, fast),
      ]) {
        expect(report.timed.map(({kind}) => kind)).toContain('decode');
        expect(report.timed.filter(({problem: wrong}) => wrong)).withContext(report.problems).toEqual([]);
      }
      expect(held()).toEqual(before);
    }, full);
  }, SLOW_MS);

  it('has nothing to time where there is one kind, or nothing to do', async () => {
    await onFreshDevice(async () => {
      expect(await tune(shapes, options, fast)).toEqual(jasmine.objectContaining({timed: [], winner: 'simt'}));
      const none = await tune({q: [1, 0, 2, 16], k: shape, v: shape}, {}, fast);
      expect(none).toEqual(jasmine.objectContaining({timed: [], winner: 'simt'}));
      expect(write).not.toHaveBeenCalled();
    });
  }, SLOW_MS);

  it('remembers winners for the next device of the same adapter, and only for that', async () => {
    let adapter = '';
    let problems = '';
    await onFreshDevice(async device => {
      ({adapter, problems} = await tune(shapes, options, fast));
      expect(write).toHaveBeenCalledTimes(hasSubgroups(device) ? 1 : 0);
    }, full);
    const chosen = async (text: string|null) => {
      stored = text;
      let choice = {kind: '', why: ''};
      await onFreshDevice(async device => {
        choice = explainChoice('forward', problem, capabilitiesOf(device));
      }, full);
      return choice;
    };
    const byTune = {kind: 'simt', why: 'the fastest that tune found'} as const;
    const byRule = await chosen(null);
    expect(byRule.why).not.toBe(byTune.why);
    expect(await chosen(formatWinners({[adapter]: {[problems]: 'simt'}}))).toEqual(byTune);
    expect(await chosen(formatWinners({another: {[problems]: 'simt'}}))).toEqual(byRule);
    expect(await chosen(formatWinners({[adapter]: {[problems]: 'decode'}}))).toEqual(byRule);
    for (const broken of ['', '{', '{"adapters": null}', formatWinners({[adapter]: 7 as unknown as Winners})]) {
      expect(await chosen(broken)).withContext(broken).toEqual(byRule);
    }
  }, SLOW_MS);

  it('goes on where winners cannot be written', async () => {
    write.and.throwError('disk full');
    await onFreshDevice(async device => {
      const {problems, winner, rememberedIn} = await tune(shapes, options, fast);
      expect(rememberedIn).toBeUndefined();
      const winners = hasSubgroups(device) ? {[problems]: winner} as Winners : undefined;
      expect(capabilitiesOf(device).winners).toEqual(winners);
    }, full);
  }, SLOW_MS);

  it('takes no kind that gives wrong results', async () => {
    await onFreshDevice(async device => {
      if (!hasSubgroups(device)) {
        pending('no subgroups here, and so one kind');
      }
      const x = tf.ones<tf.Rank.R4>([1, 45, 2, 16]); // of the same class; a plan is printed once
      await runs(() => flashAttention(x, x, x, options)); // by the rule: with subgroups
      const {timed, winner} = await tune(shapes, options, fast);
      const subgroup = timed.find(({kind}) => kind === 'subgroup')!;
      expect(subgroup.milliseconds).toBeUndefined();
      expect(subgroup.problem).toMatch(/^result \d is \d.* away from that of 'simt', whose largest value is \d/);
      expect(winner).toBe('simt');
      const log = spyOn(console, 'log');
      tf.env().set('FLASH_ATTENTION_DEBUG', 'plan');
      try {
        await runs(() => flashAttention(x, x, x, options));
        tf.dispose(x);
        expect(log.calls.allArgs()).toEqual([[jasmine.stringMatching(/forward simt .*the fastest that tune found/)]]);
      } finally {
        tf.env().set('FLASH_ATTENTION_DEBUG', '');
      }
    }, {...full, change: changing('subgroup', 'params.scale', '(1.01 * params.scale)')});
  }, SLOW_MS);

  it('takes no kind that does not compile, and leaves the device well', async () => {
    await onFreshDevice(async device => {
      if (!hasSubgroups(device)) {
        pending('no subgroups here, and so one kind');
      }
      const before = held();
      const {timed, winner} = await tune(shapes, options, fast);
      expect(timed.find(({kind}) => kind === 'subgroup')!.problem).toMatch(/the forward kernel does not compile/);
      expect(winner).toBe('simt');
      expect(held()).toEqual(before);
      const [values] = await runs(() => flashAttention(ones(), ones(), ones(), options));
      expect(values.every(value => Math.abs(value - 1) < 1e-6)).toBe(true);
    }, {...full, change: changing('subgroup', 'fn main(', 'fn main(oops')});
  }, SLOW_MS);

  it('gives back what it holds, and remembers nothing, where no kind can run', async () => {
    await onFreshDevice(async device => {
      const before = held();
      await expectAsync(tune({q: [1, 2, 2, 16], k: shape, v: shape}, {}, fast)).toBeRejectedWithError(
          /^flashAttention: the forward kernel does not compile/);
      expect(held()).toEqual(before);
      expect(write).not.toHaveBeenCalled();
      expect(capabilitiesOf(device).winners).toBeUndefined();
    }, {...full, change: changing('simt', 'fn main(', 'fn main(oops')});
  }, SLOW_MS);

  it('rejects where the device is lost meanwhile', async () => {
    await onFreshDevice(async device => {
      const tuning = tune({q: [1, 2, 2, 16], k: shape, v: shape}, {}, {milliseconds: 1e5});
      setTimeout(() => device.destroy(), 3000);
      await expectAsync(tuning).toBeRejectedWithError(/^flashAttention: the WebGPU device was lost/);
      expect(write).not.toHaveBeenCalled();
    }, full);
  }, SLOW_MS);

  it('comes one after the other where calls overlap, and lets other calls be', async () => {
    await onFreshDevice(async () => {
      const few = {q: [1, 2, 2, 16], k: shape, v: shape};
      const before = held();
      const [a, b, [values]] = await Promise.all([
        tune(few, {}, fast), tune(few, options, fast),
        runs(() => flashAttention(ones(), ones(), ones(), options)),
      ]);
      expect(a.problems).not.toBe(b.problems);
      expect([a, b].map(({timed}) => timed.filter(({problem: wrong}) => wrong))).toEqual([[], []]);
      expect(values.every(value => Math.abs(value - 1) < 1e-6)).toBe(true);
      expect(held()).toEqual(before);
    }, full);
  }, SLOW_MS);
});
