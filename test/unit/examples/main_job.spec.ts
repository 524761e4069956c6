import {spawn} from 'node:child_process';
import type {ChildProcess} from 'node:child_process';
import {createHash} from 'node:crypto';
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {checkpointPath, loadCheckpoint, previousPath} from '../../../examples/train_gpt/checkpoint.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** Whether or not this checkout has tfjs-node. */
const NO_TFJS_NODE = join(ROOT, 'test');
const SLOW_MS = 5 * 60_000;
const TINY = [
  '--backend', 'wasm', '--context', '16', '--layers', '1', '--heads', '2', '--width', '16', '--batch', '2',
  '--lengths', '16,32', '--sample', '40',
];

interface Ended {
  readonly code: number|null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the main job; `watch` sees the output as it comes. */
function start(
    args: readonly string[], watch?: (child: ChildProcess, stdout: string) => void,
    env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'examples/train_gpt/main.ts', ...args],
      {cwd: ROOT, env: {...process.env, TFJS_NODE: NO_TFJS_NODE, ...env}});
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', chunk => {
    stdout += String(chunk);
    watch?.(child, stdout);
  });
  child.stderr.on('data', chunk => {
    stderr += String(chunk);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', code => resolve({code, stdout, stderr}));
  });
}

/** Every file below a folder with its contents' digest. */
function filesOf(folder: string): Record<string, string> {
  return Object.fromEntries(readdirSync(folder, {recursive: true, withFileTypes: true})
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
      .map(path => [path, createHash('sha256').update(readFileSync(path)).digest('hex')]));
}

describe('npm start', () => {
  let folder: string;
  let out: string;
  let text: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'train-gpt-'));
    out = join(folder, 'out');
    text = join(folder, 'text.txt');
    writeFileSync(text, 'Call me Ishmael. Some years ago, never mind how long precisely.\n'.repeat(60));
  });

  afterEach(() => rmSync(folder, {recursive: true, force: true}));

  const run = (...args: string[]) => start([...TINY, '--data', text, '--out', out, ...args]);
  const losses = () => loadCheckpoint(out).snapshot.losses;

  it('trains, compares, and leaves a report and a checkpoint that --resume goes on from', async () => {
    const first = await run('--steps', '6');
    expect(first.stderr).toBe('');
    expect(first.code).toBe(0);
    expect(first.stdout).toMatch(/step 6\/6 \| loss [\d.]+, validation [\d.]+ \| [\d,]+ tokens\/s \| 0:00 left/);
    expect(first.stdout).toMatch(/validation +loss [\d.]+ nats per symbol; a bigram model has [\d.]+/);
    const report = readFileSync(join(out, 'report.html'), 'utf8');
    for (const part of ['bigram', 'Sample', 'backend', 'wasm', 'peak memory', 'tfjs 4']) {
      expect(report).toContain(part);
    }
    expect(report.match(/<svg/g)?.length).toBe(3);
    expect(report).not.toMatch(/NaN|undefined|Infinity/);
    const six = losses();
    expect(six.length).toBe(6);

    const second = await run('--resume', '--steps', '9');
    expect(second.code).toBe(0);
    expect(losses().length).toBe(9);
    expect(losses().slice(0, 6)).toEqual(six);

    const third = await run('--resume');
    expect(third.code).toBe(0);
    expect(losses().length).toBe(18);

    const anew = await run('--steps', '2', '--attention', 'standard');
    expect(anew.code).toBe(0);
    expect(anew.stdout).toContain('previous.safetensors');
    expect(losses().length).toBe(2);
    expect(existsSync(previousPath(out))).toBeTrue();
  }, SLOW_MS);

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`saves and ends cleanly on ${signal}, and --resume makes up for the stop`, async () => {
      let sent = 0;
      const stopped = await start([...TINY, '--data', text, '--out', out, '--steps', '150'], (child, stdout) => {
        if (sent === 0 && stdout.includes('step ')) {
          sent++;
          child.kill(signal); // twice, as from a terminal by way of npm
          child.kill(signal);
        }
      });
      expect(stopped.code).toBe(0);
      expect(stopped.stderr).toBe('');
      expect(stopped.stdout).toMatch(/Stopped at step \d+ of 150, saved to /);
      expect(existsSync(join(out, 'report.html'))).toBeFalse();
      const before = losses();
      expect(before.length).toBeLessThan(150);
      expect((await run('--resume', '--lengths', 'none')).code).toBe(0);
      const resumed = losses();
      expect(resumed.length).toBe(150);
      expect((await run('--steps', '150', '--lengths', 'none')).code).toBe(0);
      expect(resumed).toEqual(losses());
    }, SLOW_MS);
  }

  it('ends at the time limit with a checkpoint and a report', async () => {
    const {code, stdout} = await run('--steps', '100000', '--minutes', '0.02', '--lengths', 'none');
    expect(code).toBe(0);
    expect(stdout).toMatch(/Time is up at step \d+ of 100000/);
    expect(existsSync(checkpointPath(out))).toBeTrue();
    expect(existsSync(join(out, 'report.html'))).toBeTrue();
  }, SLOW_MS);

  it('refuses what cannot work: exit code 2, one line, and not a byte is touched', async () => {
    expect((await run('--steps', '2', '--lengths', 'none')).code).toBe(0);
    const corrupt = join(folder, 'corrupt');
    mkdirSync(join(corrupt, 'checkpoint'), {recursive: true});
    writeFileSync(checkpointPath(corrupt), readFileSync(checkpointPath(out)).subarray(0, 5000));
    writeFileSync(join(folder, 'empty.txt'), '');
    writeFileSync(join(folder, 'tiny.txt'), 'too short');
    writeFileSync(join(folder, 'binary.txt'), Buffer.alloc(4000, 0xfe));
    const before = filesOf(folder);
    const cases: Array<[string, string[], RegExp]> = [
      ['an unknown option', ['--nonsense'], /nonsense/],
      ['a bad value', ['--steps', 'many'], /--steps/],
      ['heads that do not divide the width', ['--heads', '3'], /heads/],
      ['an empty text', ['--data', join(folder, 'empty.txt')], /empty/],
      ['a tiny text', ['--data', join(folder, 'tiny.txt')], /too short/],
      ['a text too short for the context', ['--context', '4000'], /too short/],
      ['a text that is none', ['--data', join(folder, 'binary.txt')], /UTF-8/],
      ['a folder for a text', ['--data', folder], /not a file/],
      ['no text', ['--data', join(folder, 'missing.txt')], /ENOENT/],
      ['a corrupt checkpoint', ['--resume', '--out', corrupt], /cannot read the checkpoint/],
      ['no checkpoint', ['--resume', '--out', join(folder, 'nowhere')], /nothing to resume/],
      ['a checkpoint of another shape', ['--resume', '--width', '32'], /width/],
      ['a checkpoint of another text', ['--resume', '--context', '16', '--data', join(ROOT, 'LICENSE')], /text/],
      ['a checkpoint that is past its end', ['--resume', '--steps', '1'], /--steps/],
      ['a backend that is not installed', ['--backend', 'tensorflow'], /tfjs-node/],
      ['an out folder that is a file', ['--out', text], /cannot write/],
      ['a learning rate that diverges', ['--learning-rate', '1e30'], /learning-rate/],
    ];
    for (const [what, args, message] of cases) {
      const {code, stderr} = await run(...args);
      expect(code).withContext(what).toBe(2);
      expect(stderr).withContext(what).toMatch(/^[^\n]+\n$/);
      expect(stderr).withContext(what).toMatch(message);
      expect(filesOf(folder)).withContext(what).toEqual(before);
    }
  }, SLOW_MS);

  it('finds a backend by itself', async () => {
    const {code, stdout} = await run('--backend', 'auto', '--steps', '2', '--lengths', 'none');
    expect(code).toBe(0);
    expect(stdout).toMatch(/backend +(webgpu|wasm): /);
    expect(/backend +wasm/.test(stdout)).toBe(/no webgpu /.test(stdout));
    expect(/backend +wasm/.test(stdout)).toBe(/attention +(native addon|TypeScript)/.test(stdout));
  }, SLOW_MS);

  it('says which kernel computes attention, and why not the addon', async () => {
    const args = [...TINY, '--data', text, '--out', out, '--steps', '1', '--lengths', 'none'];
    const off = await start(args, undefined, {FLASH_ATTENTION_NATIVE: 'off'});
    expect(off.stdout).toMatch(/attention +TypeScript on 1 thread; FLASH_ATTENTION_NATIVE=off leaves .*; unset it\n/);
    const missing = await start(args, undefined, {FLASH_ATTENTION_NATIVE: '', FLASH_ATTENTION_ADDON: '/nowhere.node'});
    expect(missing.stdout).toMatch(/attention +TypeScript on 1 thread; .*\/nowhere\.node: there is no such file/);
  }, SLOW_MS);

  it('helps', async () => {
    const {code, stdout} = await start(['--help']);
    expect(code).toBe(0);
    expect(stdout).toContain('--resume');
  }, SLOW_MS);
});
