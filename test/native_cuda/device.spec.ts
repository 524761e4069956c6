import {spawnSync} from 'node:child_process';
import {fileURLToPath} from 'node:url';

import {nativeReport, setNativeDevice} from '../../src/node.js';
import type {NativeCalls, NativeDevice} from '../../src/node.js';
import {rawCall, runRaw} from '../native/raw_call.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Calls on cpu with the device chosen, in a process of its own: what they gave, in short, and the report. */
const PROGRAM = `
  import * as tf from '@tensorflow/tfjs';
  import {flashAttention, nativeReport, setNativeDevice} from './src/node.ts';
  const [device, fallback] = JSON.parse(process.env.DEVICE);
  const say = what => console.log(JSON.stringify(what));
  try {
    setNativeDevice(device, {fallback});
    const x = tf.ones(JSON.parse(process.env.SHAPE));
    for (let n = 0; n < 2; n++) {
      try {
        say(tf.tidy(() => {
          const values = flashAttention(x, x, x).dataSync();
          return [Math.min(...values.slice(0, 1e5)), Math.max(...values.slice(-1e5)), values.length].join(' ');
        }));
      } catch (error) {
        say(error.message);
      }
    }
    say(tf.memory().numTensors);
    const {calls, cuda} = nativeReport();
    say({calls, cuda, device: nativeReport().device});
  } catch (error) {
    say(error.message);
  }
`;

interface Outcome {
  lines: unknown[];
  stderr: string;
}

function onDevice(
    device: NativeDevice, fallback: 'error'|'cpu', settings: string, env: NodeJS.ProcessEnv = {}): Outcome {
  const {status, stdout, stderr} = spawnSync(
      process.execPath, ['--import', 'tsx', '--input-type=module', '-e', PROGRAM], {
        cwd: ROOT, encoding: 'utf8',
        env: {
          ...process.env, DEVICE: JSON.stringify([device, fallback]), FAKE_CUDA: settings, SHAPE: '[1, 2, 1, 4]',
          ...env,
        },
      });
  expect(status).withContext(stderr).toBe(0);
  const lines = stdout.trim().split('\n').filter(line => /^["{\d]/.test(line))
      .map(line => JSON.parse(line) as unknown);
  return {lines, stderr};
}

/** Least and largest of a result, and its size. */
const ONES = '1 1 8';
/** What is left to others, in bytes: with no more than that, nothing fits. */
const FULL = `memory=${2 ** 28}`;

describe('the device of the addon', () => {
  afterEach(() => setNativeDevice('cpu'));

  it('is the CPU to begin with, and what it is set to then', () => {
    expect(nativeReport().device).toBe('cpu');
    for (const device of ['cuda', 'cuda:0', 'cpu'] as const) {
      setNativeDevice(device);
      expect(nativeReport().device).toBe(device);
    }
  });

  it('is reported with the driver, the devices and the kernels that fit', () => {
    expect(nativeReport().cuda).toEqual({
      driver: '13.0', kernels: '13.0', contextEvents: true,
      devices: [{
        device: 'cuda:0', name: 'Fake 0', computeCapability: '9.0', memoryBytes: 2 ** 40, code: 'sm_90a',
      }],
    });
  });

  it('must be one that there is', () => {
    const wrong: Array<[unknown, RegExp]> = [
      ['gpu', /^flashAttention: expected 'cpu', 'cuda' or 'cuda:<number>' for device, received 'gpu'$/],
      ['cuda:', /received 'cuda:'/], ['cuda:-1', /received 'cuda:-1'/], ['cuda:1x', /received 'cuda:1x'/],
      ['cuda:99999999999', /received 'cuda:99999999999'/], ['', /received ''/],
      [1, /^flashAttention: expected 'cpu', 'cuda' or 'cuda:<number>' for device, received 1$/],
      [undefined, /for device, received undefined/],
      ['cuda:1', /^flashAttention: expected a CUDA device .* for device, received 'cuda:1': the devices are cuda:0$/],
    ];
    for (const [device, message] of wrong) {
      expect(() => setNativeDevice(device as NativeDevice)).withContext(String(device)).toThrowError(message);
    }
    expect(() => setNativeDevice('cuda', {fallback: 'gpu' as 'cpu'}))
        .toThrowError('flashAttention: expected \'error\' or \'cpu\' for fallback, received \'gpu\'');
    expect(nativeReport().device).toBe('cpu');
  });

  it('computes what the CPU computes, in every compute type', () => {
    for (const kind of ['forward', 'backward'] as const) {
      for (const computeType of ['float32', 'tensorfloat32', 'float16', 'bfloat16'] as const) {
        setNativeDevice('cpu');
        const expected = runRaw(rawCall(kind, {computeType}));
        const before = nativeReport().calls!;
        setNativeDevice('cuda');
        expect(runRaw(rawCall(kind, {computeType}))).toEqual(expected);
        const after = nativeReport().calls!;
        expect([after.cuda - before.cuda, after[kind] - before[kind]]).toEqual([1, 1]);
      }
    }
  });

  it('may be any of several', () => {
    const {lines: [one, two, tensors, report]} = onDevice('cuda:2', 'error', 'devices=3');
    expect([one, two, tensors]).toEqual([ONES, ONES, 1]);
    expect(report).toEqual(jasmine.objectContaining({device: 'cuda:2'}));
    expect((report as {calls: NativeCalls}).calls)
        .toEqual({forward: 2, backward: 0, append: 0, tensorflow: 0, cuda: 2, inPlaceOfCuda: 0});
    expect(onDevice('cuda:3', 'error', 'devices=3').lines).toEqual([jasmine.stringMatching(
        /^flashAttention: expected a CUDA device .*, received 'cuda:3': the devices are cuda:0 to cuda:2$/)]);
  }, 60_000);

  it('is not there without a driver, without kernels for it, or in an addon that has none', () => {
    const because = (settings: string, env: NodeJS.ProcessEnv) => onDevice('cuda', 'cpu', settings, env).lines;
    const expected = 'expected a CUDA device that the addon can use for device, received \'cuda\'';
    expect(because('', {FLASH_ATTENTION_LIBCUDA: '/nowhere/libcuda.so.1'})).toEqual([jasmine.stringMatching(
        `^flashAttention: ${expected}: no NVIDIA driver is installed \\(/nowhere/libcuda.so.1: `)]);
    expect(because('major=7,minor=5', {})).toEqual(
        [`flashAttention: ${expected}: this addon has kernels for none of Fake 0`]);
    expect(because('version=11010', {}))
        .toEqual([jasmine.stringMatching(/: the NVIDIA driver is one for CUDA 11.1: /)]);
  }, 60_000);

  it('that is full or busy gives an error, or the CPU computes and it is said once, as was chosen', () => {
    for (const [settings, cause] of [
      [FULL, /a key head of this call takes \d+ bytes or more on Fake 0, and 0 are free/],
      ['fail=cuDevicePrimaryCtxRetain:46', /CUDA device 0 .* cannot be used: .*CUDA_ERROR_DEVICE_UNAVAILABLE/],
    ] as const) {
      const {lines: [one, two, tensors], stderr} = onDevice('cuda', 'error', settings);
      expect([one, two]).toEqual([jasmine.stringMatching(cause), jasmine.stringMatching(cause)]);
      expect(one).toMatch(/^flashAttention: /);
      expect(tensors).toBe(1);
      expect(stderr).not.toContain('flashAttention');
      const cpu = onDevice('cuda', 'cpu', settings);
      expect(cpu.lines.slice(0, 3)).toEqual([ONES, ONES, 1]);
      expect((cpu.lines[3] as {calls: NativeCalls}).calls)
          .toEqual({forward: 2, backward: 0, append: 0, tensorflow: 0, cuda: 0, inPlaceOfCuda: 2});
      expect(cpu.stderr.split('flashAttention: the CPU computes in the place of the CUDA device: ').length).toBe(2);
      expect(cpu.stderr).toMatch(cause);
    }
  }, 120_000);

  it('that is lost stays lost, and the process lives on', () => {
    const lost = 'fail=cuMemcpyHtoDAsync:700@2';
    const {lines: [one, two, tensors]} = onDevice('cuda', 'error', lost);
    expect(one).toMatch(/^flashAttention: cuMemcpyHtoDAsync: CUDA_ERROR_ILLEGAL_ADDRESS/);
    expect(two).toMatch(/^flashAttention: CUDA device 0 .* was lost to this process: .*Start the process again/);
    expect(tensors).toBe(1);
    expect(onDevice('cuda', 'cpu', lost).lines.slice(0, 3)).toEqual([ONES, ONES, 1]);
  }, 60_000);

  it('works in pieces where it has little memory', () => {
    // A tensor has 2 MiB, and 4 MiB are free.
    const env = {SHAPE: '[4, 512, 4, 64]'};
    const {lines: [one, two]} = onDevice('cuda', 'error', `memory=${2 ** 28 + 2 ** 22}`, env);
    expect([one, two]).toEqual(['1 1 524288', '1 1 524288']);
    expect(onDevice('cuda', 'error', `memory=${2 ** 28 + 2 ** 18}`, env).lines[0]).toMatch(/a key head of this call/);
  }, 60_000);
});
