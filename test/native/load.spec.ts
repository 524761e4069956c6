import {spawnSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {candidates, nativeAddon, tryToLoad} from '../../src/backends/native/load.js';
import {nativeReport, setNativeThreads} from '../../src/node.js';
import type {CudaReport, NativeReport} from '../../src/node.js';

import {addon} from './raw_call.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BUILT = 'build/native/flash_attention.node';
const PREBUILT = `prebuilds/${process.platform}-${process.arch}/flash_attention.node`;

/** A program of this checkout in a process of its own; what it wrote. */
function program(text: string, env: NodeJS.ProcessEnv) {
  const {status, stdout, stderr} = spawnSync(
      process.execPath, ['--import', 'tsx', '--input-type=module', '-e', text],
      {cwd: ROOT, encoding: 'utf8', env: {...process.env, ...env}});
  return {status, stdout, stderr};
}

const ATTENTION = `
  import * as tf from '@tensorflow/tfjs';
  import {flashAttention, nativeReport} from './src/node.ts';
  const x = tf.ones([1, 2, 1, 4]);
  for (let n = 0; n < 2; n++) {
    console.log(String(flashAttention(x, x, x).dataSync()));
  }
  console.log(JSON.stringify(nativeReport()));
`;

describe('loading the addon', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'flash-attention-'));
  });

  afterEach(() => rmSync(folder, {recursive: true}));

  function put(name: string, contents: string) {
    mkdirSync(join(folder, name, '..'), {recursive: true});
    writeFileSync(join(folder, name), contents);
  }

  it('takes a named file, or what was built here before what came along', () => {
    expect(candidates({}, folder)).toEqual([join(folder, BUILT), join(folder, PREBUILT)]);
    expect(candidates({FLASH_ATTENTION_ADDON: '/somewhere'}, folder)).toEqual(['/somewhere']);
    expect(candidates({}, undefined)).toEqual([]);
  });

  it('names every cause in one error, and the remedy', () => {
    put(PREBUILT, 'no library');
    const {binding, problem} = tryToLoad({}, folder);
    expect(binding).toBeUndefined();
    const [first, built, prebuilt, remedy, ...rest] = problem!.message.split('\n');
    expect(first).toMatch(/^flashAttention: the native addon does not load \(\w+-\w+, Node v[\d.]+\):$/);
    expect(built).toBe(`  ${join(folder, BUILT)}: there is no such file`);
    expect(prebuilt).toMatch(/prebuilds.*flash_attention\.node: .*(file too short|invalid ELF header)/);
    expect(remedy).toMatch(/npm run build:native.*FLASH_ATTENTION_ADDON/);
    expect(rest).toEqual([]);
  });

  it('says so where a bundler left no place to look in', () => {
    expect(tryToLoad({}, undefined).problem!.message).toMatch(/this module is not in its package/);
  });

  it('is left out on request', () => {
    const {binding, problem} = tryToLoad({FLASH_ATTENTION_NATIVE: 'off'}, ROOT);
    expect(binding).toBeUndefined();
    expect(problem!.kind).toBe('off');
    expect(problem!.message).toMatch(/^flashAttention: FLASH_ATTENTION_NATIVE=off/);
  });

  it('takes the number of threads from the environment', () => {
    const load = (threads: string) =>
        tryToLoad({FLASH_ATTENTION_ADDON: nativeAddon().path, FLASH_ATTENTION_THREADS: threads}, undefined);
    expect(load('3').binding!.threads()).toBe(3);
    setNativeThreads(0);
    for (const threads of ['many', '-1', '1.5', '4096']) {
      expect(load(threads).problem!.message).toMatch(/expected .* for (FLASH_ATTENTION_THREADS|threads)/);
    }
  });

  it('leaves the TypeScript kernel to serve where there is none, and warns where one was asked for', () => {
    const missing = join(folder, 'nowhere.node');
    const {status, stdout, stderr} = program(ATTENTION, {FLASH_ATTENTION_ADDON: missing});
    expect(status).toBe(0);
    const [one, two, report] = stdout.trim().split('\n').slice(-3);
    expect([one, two]).toEqual(['1,1,1,1,1,1,1,1', '1,1,1,1,1,1,1,1']);
    const {loaded, problem} = JSON.parse(report) as NativeReport;
    expect(loaded).toBeFalse();
    expect(problem).toContain(`${missing}: there is no such file`);
    expect(stderr.split('the native addon does not load').length).toBe(2);
    const off = program(ATTENTION, {FLASH_ATTENTION_NATIVE: 'off'});
    expect(off.stdout).toContain('1,1,1,1,1,1,1,1');
    expect(off.stderr).not.toContain('native addon');
  }, 60_000);

  it('serves without a word where there is one, in a process that ends', () => {
    const {status, stdout, stderr} = program(ATTENTION, {FLASH_ATTENTION_ADDON: nativeAddon().path});
    expect(status).toBe(0);
    const {calls} = JSON.parse(stdout.trim().split('\n').at(-1)!) as NativeReport;
    expect(calls).toEqual({forward: 2, backward: 0, append: 0, tensorflow: 0, cuda: 0, inPlaceOfCuda: 0});
    expect(stderr).not.toContain('flashAttention');
  }, 60_000);
});

describe('the report of the addon', () => {
  it('says what it is', () => {
    const {loaded, path, instructionSet, threads, calls, problem} = nativeReport();
    expect(loaded).withContext(problem ?? '').toBeTrue();
    expect(path).toBe(nativeAddon().path);
    expect(['avx512', 'avx2', 'portable']).toContain(instructionSet!);
    expect(threads).toBeGreaterThan(0);
    expect(calls!.tensorflow).toBe(0);
  });

  it('says that there is no CUDA device without a driver, and why', () => {
    const text = `
      import {nativeReport, setNativeDevice} from './src/node.ts';
      const {cuda, device} = nativeReport();
      let error;
      try {
        setNativeDevice('cuda', {fallback: 'cpu'});
      } catch ({message}) {
        error = message;
      }
      console.log(JSON.stringify({cuda, device, error}));`;
    const {status, stdout, stderr} =
        program(text, {FLASH_ATTENTION_ADDON: nativeAddon().path, FLASH_ATTENTION_LIBCUDA: '/nowhere/libcuda.so.1'});
    expect(status).withContext(stderr).toBe(0);
    const {cuda: {devices, problem}, device, error} =
        JSON.parse(stdout.trim().split('\n').at(-1)!) as {cuda: CudaReport, device: string, error: string};
    expect(devices).toEqual([]);
    expect(device).toBe('cpu');
    // By the machine that built it: without nvcc there are no kernels.
    expect(problem).toMatch(/^this addon was built without CUDA kernels$|^no NVIDIA driver is installed \(\/nowhere/);
    expect(error).toBe('flashAttention: expected a CUDA device that the addon can use for device, received ' +
        `'cuda': ${problem}`);
  }, 60_000);

  it('follows the number of threads', () => {
    setNativeThreads(5);
    expect(nativeReport().threads).toBe(5);
    setNativeThreads(0);
    expect(nativeReport().threads).toBe(addon().defaultThreads());
    for (const count of [-1, 1.5, NaN, 1025, '2', undefined]) {
      expect(() => setNativeThreads(count as number))
          .toThrowError(/^flashAttention: expected an integer from 0 to 1024 for threads/);
    }
  });

  it('follows the instruction set, and refuses one that there is not', () => {
    const best = addon().instructionSet();
    expect(addon().forceInstructionSet('portable')).toBeTrue();
    expect(nativeReport().instructionSet).toBe('portable');
    expect(addon().forceInstructionSet('abacus')).toBeFalse();
    expect(addon().forceInstructionSet(best)).toBeTrue();
    expect(nativeReport().instructionSet).toBe(best);
  });

  it('says that no TensorFlow is loaded', () => {
    expect(() => addon().registerTensorFlow(false))
        .toThrowError('flashAttention: no TensorFlow is loaded in this process: import @tensorflow/tfjs-node first');
  });
});
