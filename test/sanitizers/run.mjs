// The native kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: the case table and the
// variants forward and backward, by every instruction set that this CPU has, with 1 and 4 threads and from several
// threads at once; and a fuzzer over what the addon is told of a call. Leaves its counts in
// build/sanitizers_counts.json. With TEST_FULL cases of the grid too, and more of the fuzzer.
import {spawnSync} from 'node:child_process';
import {existsSync, rmSync} from 'node:fs';
import {join} from 'node:path';

import {check, root, run, writeCounts} from '../support/checks.mjs';
import {buildProgram} from './build_programs.mjs';

const isFull = Boolean(process.env.TEST_FULL);
const CALLS = join(root, 'build/sanitizers/calls.bin');
const GRID_CASES = isFull ? 300 : 0;
const FUZZ_RUNS = isFull ? 2_000_000 : 60_000;
/** Of the calls, how many are made from three threads at once. */
const TOGETHER = isFull ? 300 : 100;
const TIMEOUT = (isFull ? 60 : 8) * 60_000;

const MEMORY = ['address', 'undefined'];

/** Runs a program; its last line is JSON. */
function counts(program, args) {
  const {status, signal, stdout, stderr} = spawnSync(join(root, program), args,
      {cwd: root, encoding: 'utf8', maxBuffer: 1e9, timeout: TIMEOUT});
  if (status !== 0) {
    const lines = (stdout + stderr).split('\n');
    // A report begins with its kind; whoever ran into it stands at the end.
    const report = lines.findIndex(line => /ERROR: |WARNING: |runtime error/.test(line));
    throw new Error([`${program} ended with ${signal ?? status}:`, ...report < 0 ? lines.slice(-12) :
      [...lines.slice(report, report + 20), '…', ...lines.slice(-4)]].join('\n'));
  }
  const result = stdout.trimEnd().split('\n').at(-1);
  console.log(`        ${result}`);
  return JSON.parse(result);
}

function expectAtLeast(least, number, what) {
  if (!(number >= least)) {
    throw new Error(`expected at least ${least} ${what}, there were ${number}`);
  }
}

async function built(name, sanitizers) {
  const start = performance.now();
  const program = await buildProgram(name, sanitizers, line => /^\[/.test(line) || console.log(line));
  console.log(`        ${program}, built in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return program;
}

rmSync(CALLS, {force: true});
await check('the calls of the case table and of the variants, and what they should give', () => {
  console.log(`        ${run(process.execPath, ['--import', 'tsx', 'test/sanitizers/dump_cases.ts', CALLS,
    `${GRID_CASES}`], {cwd: root}).trim().split('\n').at(-1)}`);
});

if (existsSync(CALLS)) {
  await check('they run and agree under AddressSanitizer and UndefinedBehaviorSanitizer', async () => {
    const {calls, runs} = counts(await built('runner', MEMORY), [CALLS, '--together=10']);
    expectAtLeast(390, calls, 'calls');
    expectAtLeast(2 * calls, runs, 'runs'); // 1 and 4 threads on each set
  });
  await check('nothing gets past the checks of a description (fuzzer)', async () => {
    const {ran, forward, backward, append} = counts(await built('fuzz_description', MEMORY), [CALLS, `${FUZZ_RUNS}`]);
    expectAtLeast(FUZZ_RUNS / 20, ran, 'descriptions that ran');
    for (const [kind, number] of Object.entries({forward, backward, append})) {
      expectAtLeast(FUZZ_RUNS / 1000, number, `of ${kind}`);
    }
  });
  await check('they run and agree under ThreadSanitizer', async () => {
    const {calls} = counts(await built('runner', ['thread']),
        [CALLS, '--sets=avx512,portable', '--threads=4', `--together=${TOGETHER}`]);
    expectAtLeast(390, calls, 'calls');
  });
}
writeCounts('sanitizers');
